use super::glob_matches;

#[test]
fn patterns_match_like_those_of_redis() {
    let matching = [
        ("*", ""),
        ("h?llo", "hello"),
        ("h*llo", "heeeello"),
        ("h[ae]llo", "hallo"),
        ("h[^e]llo", "hbllo"),
        ("h[a-c]llo", "hbllo"),
        ("h[c-a]llo", "hbllo"),
        (r"h\?llo", "h?llo"),
        (r"[\]]", "]"),
        ("a*b*c", "aXbYbZc"),
        ("[abc", "a"),
        ("", ""),
    ];
    for (pattern, text) in matching {
        assert!(glob_matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
    }
    let differing =
        [("", "a"), ("a", ""), ("?", ""), ("h[^e]llo", "hello"), ("a*b", "abc"), ("[]", "a")];
    for (pattern, text) in differing {
        assert!(!glob_matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
    }
}

#[test]
fn many_stars_do_not_explode() {
    let pattern = "*a".repeat(200) + "b";
    assert!(!glob_matches(pattern.as_bytes(), "a".repeat(4_000).as_bytes()));
}
