use super::super::fake::scripted;
use super::*;

fn answer(text: &'static str) -> io::Result<Reply> {
    Connection::open(scripted(text)).unwrap().call(&["PING"])
}

#[test]
fn every_kind_of_answer_is_read() {
    assert!(answer("+OK\r\n").unwrap().is_ok());
    assert_eq!(answer(":-7\r\n").unwrap(), Reply::Integer(-7));
    assert_eq!(answer("$-1\r\n").unwrap(), Reply::Nil);
    assert_eq!(answer("*-1\r\n").unwrap(), Reply::Nil);
    assert_eq!(answer("$4\r\na\r\nb\r\n").unwrap(), Reply::Bulk("a\r\nb".to_owned()));
    let nested = Reply::Array(vec![Reply::Array(vec![Reply::Nil]), Reply::Bulk(String::new())]);
    assert_eq!(answer("*2\r\n*1\r\n$-1\r\n$0\r\n\r\n").unwrap(), nested);
}

#[test]
fn an_error_says_whether_the_command_may_have_been_executed() {
    assert!(answer("-REFUSED not executed: busy\r\n").unwrap().not_executed().is_some());
    assert!(answer("-LOADING not yet\r\n").unwrap().not_executed().is_some());
    assert!(answer("-EXECABORT discarded\r\n").unwrap().not_executed().is_some());
    assert!(answer("-ERR something else\r\n").unwrap().not_executed().is_none());
}

#[test]
fn a_cut_answer_is_the_end_of_the_connection() {
    for cut in ["", "$5\r\nab", "*2\r\n+OK\r\n"] {
        assert_eq!(answer(cut).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{cut:?}");
    }
}

#[test]
fn what_is_no_answer_is_an_error() {
    let odd = ["hello\r\n", "$x\r\n", "$99999999999\r\n", "*99999999999\r\n", "$1\r\nabc", "+OK\n"];
    for text in odd.into_iter().chain(["*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"]) {
        assert_eq!(answer(text).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:?}");
    }
}

#[test]
fn pipelined_answers_come_in_order() {
    let mut connection = Connection::open(scripted("+OK\r\n:1\r\n:2\r\n")).unwrap();
    for word in ["a", "b", "c"] {
        connection.push(&[word]);
    }
    let replies = connection.finish().unwrap();
    assert_eq!(replies, [Reply::Simple("OK".to_owned()), Reply::Integer(1), Reply::Integer(2)]);
}
