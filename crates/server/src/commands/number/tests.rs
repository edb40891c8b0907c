use super::parse_integer;

#[test]
fn only_the_canonical_form_is_a_number() {
    let number = |text: &str| parse_integer(text.as_bytes());
    assert_eq!(number("0"), Some(0));
    assert_eq!(number("-12"), Some(-12));
    assert_eq!(number("9223372036854775807"), Some(i64::MAX));
    assert_eq!(number("-9223372036854775808"), Some(i64::MIN));
    for text in ["", "-", "+1", "01", "-0", " 1", "1 ", "1.0", "9223372036854775808"] {
        assert_eq!(number(text), None, "{text}");
    }
}
