use super::*;

#[test]
fn programs_are_found_among_cargos_messages() {
    let mut artifacts = Artifacts::default();
    let message = |kind: &str, name: &str, is_test: bool| {
        serde_json::json!({
            "reason": "compiler-artifact",
            "target": { "kind": [kind], "name": name },
            "profile": { "test": is_test },
            "executable": format!("debug/{kind}/{name}"),
        })
        .to_string()
    };
    artifacts.note(&message("bin", "chaos", false));
    artifacts.note(&message("bin", "quorate", true));
    artifacts.note(r#"{"reason": "build-script-executed"}"#);
    artifacts.note("a word of a build script");
    assert!(artifacts.server().is_err());

    artifacts.note(&message("bin", "quorate", false));
    artifacts.note(&message("example", "plan", false));
    assert_eq!(artifacts.server().unwrap(), &PathBuf::from("debug/bin/quorate"));
    assert_eq!(artifacts.program("chaos").unwrap(), &PathBuf::from("debug/bin/chaos"));
    assert!(artifacts.program("sim").is_err());
    assert_eq!(artifacts.examples, [PathBuf::from("debug/example/plan")]);
}

#[test]
fn what_is_run_has_every_feature_but_planted_bugs() {
    let metadata = serde_json::json!({ "packages": [
        { "name": "quorate-types", "features": { "canary": ["simulation"], "simulation": [] } },
        { "name": "quorate-raft", "features": { "conformance": [] } },
        { "name": "quorate-crdt", "features": {} },
    ] });
    let features = harmless_features(&metadata.to_string()).unwrap();
    assert_eq!(features, ["quorate-types/simulation", "quorate-raft/conformance"]);
    assert!(harmless_features("{}").is_err());
}
