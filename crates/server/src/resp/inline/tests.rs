use super::*;

fn words(line: &str) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
    Ok(split(line.as_bytes())?.into_iter().map(|word| word.to_vec()).collect())
}

#[test]
fn words_quotes_and_escapes_are_split_like_redis_does() {
    assert_eq!(words("  SET  a  b "), Ok(vec![b"SET".to_vec(), b"a".to_vec(), b"b".to_vec()]));
    assert_eq!(words(r#"ECHO "a \"b\x41\n""#).map(|w| w[1].clone()), Ok(b"a \"bA\n".to_vec()));
    assert_eq!(words(r"ECHO 'it\'s'").map(|w| w[1].clone()), Ok(b"it's".to_vec()));
    assert_eq!(words(r#"SET k """#).map(|w| w[2].clone()), Ok(Vec::new()));
}

#[test]
fn unbalanced_quotes_are_an_error() {
    for line in [r#"ECHO "a"#, "ECHO 'a", r#"ECHO "a"b"#] {
        assert_eq!(words(line), Err(UnbalancedQuotes));
    }
}
