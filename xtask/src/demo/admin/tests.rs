use super::super::fake::scripted;
use super::*;

/// An interface that gives one answer to everything.
fn answering(status: &str, body: &str) -> Admin {
    let length = body.len();
    Admin::at(scripted(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")))
}

#[test]
fn a_list_of_shards_is_read() {
    let shards = json!([{
        "id": 3, "range": "[a, b)", "leader": 2, "epoch": 1, "applied": 9, "state_hash": "ff",
        "replicas": [{ "id": 7, "node": 2, "voter": true }, { "id": 8, "node": 4, "voter": false }],
    }]);
    let shards = answering("200 OK", &shards.to_string()).shards().unwrap();
    let [shard] = shards.as_slice() else { panic!("{shards:?}") };
    assert_eq!((shard.id, shard.leader, shard.applied), (3, Some(2), Some(9)));
    assert!(shard.has_voter_on(2) && !shard.has_voter_on(4));
}

#[test]
fn a_migration_must_tell_its_write_pause() {
    let parse = serde_json::from_value::<MigrationView>;
    let mut migration = json!({ "id": "m", "kind": "move", "group": "shard 1", "from": 1, "to": 4, "phase": "complete",
            "finished": true, "error": null });
    let error = parse(migration.clone()).unwrap_err().to_string();
    assert!(error.contains("write_pause_micros"), "{error}");
    migration["write_pause_micros"] = Value::Null;
    assert_eq!(parse(migration.clone()).unwrap().write_pause_micros, None);
    migration["write_pause_micros"] = json!(1_500);
    assert_eq!(parse(migration).unwrap().write_pause_micros, Some(1_500));
}

#[test]
fn a_refusal_is_told_in_the_words_of_the_node() {
    let admin = answering("409 Conflict", r#"{"error":"already moving"}"#);
    let error = admin.transfer(3, 1).unwrap_err().to_string();
    assert!(error.contains("already moving (status 409)"), "{error}");
}

#[test]
fn an_accepted_split_names_its_migration() {
    let admin = answering("202 Accepted", r#"{"migration":"m","message":"splitting"}"#);
    assert_eq!(admin.split(3).unwrap(), "m");
    assert!(answering("202 Accepted", r#"{"migration":null,"message":""}"#).split(3).is_err());
}

#[test]
fn readiness_is_a_status() {
    assert!(answering("200 OK", "ready\n").ready().is_ok());
    let starting = answering("503 Service Unavailable", r#"{"error":"starting"}"#);
    assert_eq!(starting.ready().unwrap_err(), "starting (status 503)");
}

#[test]
fn half_an_answer_is_none() {
    for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[]"] {
        let error = Admin::at(scripted(answer)).nodes().unwrap_err().to_string();
        assert!(error.contains("not complete"), "{error}");
    }
}
