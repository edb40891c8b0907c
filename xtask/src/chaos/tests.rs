use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn passed_on(line: &str) -> String {
    let line = Line::try_parse_from(line.split_whitespace()).unwrap();
    let arguments = to_arguments(&line.args);
    arguments.join(" ".as_ref()).into_string().unwrap()
}

#[test]
fn flags_are_passed_on_as_they_are_given() {
    assert_eq!(passed_on("chaos"), "--seconds 120");
    let all = "--seconds 9 --nodes 5 --seed 18446744073709551615 --without-mount --keep";
    assert_eq!(passed_on(&format!("chaos {all}")), all);
    assert!(Line::try_parse_from(["chaos", "--nodes", "2"]).is_err());
}
