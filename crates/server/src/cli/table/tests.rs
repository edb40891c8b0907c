use serde_json::json;

use super::render;

#[test]
fn a_list_becomes_aligned_columns() {
    let shards = json!([
        {"id": 1, "leader": 2, "replicas": [{"node": 1, "voter": true}, {"node": 2, "voter": false}]},
        {"id": 10, "leader": null, "replicas": []},
    ]);
    let table = render(&shards, &["id", "leader", "replicas"]);
    assert_eq!(table, "ID  LEADER  REPLICAS\n1   2       1,2?\n10  -\n");
}

#[test]
fn an_object_becomes_lines() {
    assert_eq!(render(&json!({"node": 1, "serving": true}), &[]), "node     1\nserving  true\n");
}
