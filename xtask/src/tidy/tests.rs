//! Each rule catches a violation that is planted in a house without any.

use std::path::Path;
use std::process::Command;

use super::layers::LAYERS;
use super::*;

/// A small house in order, in a folder of its own.
struct House {
    folder: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let house = Self { folder: tempfile::tempdir().unwrap() };
        assert!(
            Command::new("git")
                .args(["init", "-q"])
                .current_dir(house.root())
                .status()
                .unwrap()
                .success()
        );
        let mut manifest =
            String::from("[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n\n");
        manifest.push_str("[workspace.dependencies]\n");
        for name in LAYERS.iter().chain(&["types"]) {
            manifest.push_str(&format!("quorate-{name} = {{ path = \"crates/{name}\" }}\n"));
        }
        house.plant("Cargo.toml", &manifest);
        house.plant("docs/dependencies.md", "- `serde`: formats\n");
        for name in LAYERS {
            house.plant_crate(name, &format!("quorate-{name}"));
        }
        house.plant_crate("types", "quorate-types");
        house.plant_crate("quorate", "quorate");
        house
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn plant(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn plant_crate(&self, folder: &str, name: &str) {
        self.plant_manifest(folder, name, "");
        self.plant(&format!("crates/{folder}/README.md"), "# It\n\n```\nassert!(true);\n```\n");
        self.plant(
            &format!("crates/{folder}/src/lib.rs"),
            "#![doc = include_str!(\"../README.md\")]\n",
        );
        self.plant(&format!("crates/{folder}/examples/it.rs"), "fn main() {}\n");
    }

    fn plant_manifest(&self, folder: &str, name: &str, dependencies: &str) {
        let head =
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
        self.plant(&format!("crates/{folder}/Cargo.toml"), &format!("{head}{dependencies}"));
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.root().join(path)).unwrap();
    }

    fn found(&self) -> Vec<String> {
        let packages = layers::packages(self.root()).unwrap();
        let found = check(&Tree::read(self.root()).unwrap(), &packages).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    /// Exactly one place is found, and its message begins as given.
    #[track_caller]
    fn assert_finds(&self, beginning: &str) {
        let found = self.found();
        assert!(
            matches!(found.as_slice(), [only] if only.starts_with(beginning)),
            "expected '{beginning}', found {found:#?}"
        );
    }

    #[track_caller]
    fn assert_in_order(&self) {
        assert_eq!(self.found(), Vec::<String>::new());
    }
}

#[track_caller]
fn assert_finds_in_source(text: &str, beginning: &str) {
    let house = House::new();
    house.plant("crates/gossip/src/core.rs", text);
    house.assert_finds(beginning);
}

#[track_caller]
fn assert_source_in_order(text: &str) {
    let house = House::new();
    house.plant("crates/gossip/src/core.rs", text);
    house.assert_in_order();
}

#[test]
fn a_house_in_order_passes() {
    House::new().assert_in_order();
}

#[test]
fn a_layer_that_depends_on_another_layer_is_found() {
    let house = House::new();
    let dependency = "[dependencies]\nquorate-raft.workspace = true\n";
    house.plant_manifest("gossip", "quorate-gossip", dependency);
    house.assert_finds(
        "crates/gossip/Cargo.toml:6: quorate-gossip must not know the layer quorate-raft",
    );
}

#[test]
fn a_build_dependency_between_layers_is_found() {
    let house = House::new();
    let dependency = "[build-dependencies]\nquorate-raft.workspace = true\n";
    house.plant_manifest("gossip", "quorate-gossip", dependency);
    house.assert_finds("crates/gossip/Cargo.toml:6: quorate-gossip must not know");
}

#[test]
fn types_depend_on_no_layer() {
    let house = House::new();
    let dependency = "[dependencies]\nquorate-crdt.workspace = true\n";
    house.plant_manifest("types", "quorate-types", dependency);
    house.assert_finds("crates/types/Cargo.toml:6: quorate-types must not know");
}

#[test]
fn a_layer_or_types_that_depends_on_what_stands_above_is_found() {
    let above =
        [("quorate", "quorate"), ("server", "quorate-server"), ("testkit", "quorate-testkit")];
    for (folder, dependency) in above {
        for layer in ["gossip", "types"] {
            let house = House::new();
            house.plant_crate(folder, dependency);
            let line = format!("{dependency} = {{ path = \"../{folder}\" }}\n");
            let name = format!("quorate-{layer}");
            house.plant_manifest(layer, &name, &format!("[dev-dependencies]\n{line}"));
            house.assert_in_order();
            house.plant_manifest(layer, &name, &format!("[dependencies]\n{line}"));
            house.assert_finds(&format!(
                "crates/{layer}/Cargo.toml:6: {name} must not know {dependency} outside its tests"
            ));
        }
    }
}

#[test]
fn a_dev_dependency_between_layers_is_allowed() {
    let house = House::new();
    let dependency = "[dev-dependencies]\nquorate-raft.workspace = true\nopenraft = \"1\"\n";
    house.plant_manifest("gossip", "quorate-gossip", dependency);
    house.assert_in_order();
}

#[test]
fn the_facade_may_know_every_layer() {
    let house = House::new();
    let dependency =
        "[dependencies]\nquorate-raft.workspace = true\nquorate-crdt.workspace = true\n";
    house.plant_manifest("quorate", "quorate", dependency);
    house.assert_in_order();
}

#[test]
fn openraft_outside_raft_is_found() {
    let house = House::new();
    house.plant_manifest(
        "raft",
        "quorate-raft",
        "[dependencies]\nopenraft = \"1\"\nredb = \"1\"\n",
    );
    house.assert_in_order();
    house.plant_manifest("meta", "quorate-meta", "[dependencies]\nopenraft-rt = \"1\"\n");
    house.assert_finds("crates/meta/Cargo.toml:6: quorate-meta must not depend on openraft-rt");
}

#[test]
fn redb_outside_its_four_crates_is_found() {
    let house = House::new();
    house.plant_manifest("engine", "quorate-engine", "[dependencies]\nredb = \"1\"\n");
    house.assert_in_order();
    house.plant_manifest("quorate", "quorate", "[dependencies]\nredb = \"1\"\n");
    house.assert_finds("crates/quorate/Cargo.toml:6: quorate must not depend on redb");
}

#[test]
fn a_source_file_that_is_too_long_is_found() {
    assert_source_in_order(&"// A line.\n".repeat(900));
    assert_finds_in_source(&"// A line.\n".repeat(901), "crates/gossip/src/core.rs:901: 901 lines");
}

#[test]
fn a_facade_that_is_too_long_is_found() {
    let house = House::new();
    // Each file is in order; together with lib.rs they are as long as may be.
    let mut lines_left = house::FACADE_LINES_MAX - 1;
    for name in 0.. {
        let lines = lines_left.min(750);
        house.plant(&format!("crates/quorate/src/m{name}.rs"), &"// A line.\n".repeat(lines));
        lines_left -= lines;
        if lines_left == 0 {
            break;
        }
    }
    house.assert_in_order();
    house.plant("crates/quorate/src/more.rs", "// A line.\n");
    house.assert_finds("crates/quorate/src/lib.rs:1: the facade has");
}

#[test]
fn unfinished_code_is_found() {
    assert_finds_in_source("fn f() {\n    todo!()\n}\n", "crates/gossip/src/core.rs:2: unfinished");
    assert_finds_in_source(
        "fn f() { unimplemented!(\"x\") }",
        "crates/gossip/src/core.rs:1: unfinished",
    );
}

#[test]
fn a_note_without_an_owner_is_found() {
    assert_finds_in_source("\n// TODO: later\n", "crates/gossip/src/core.rs:2: a TODO or FIXME");
    assert_finds_in_source("/* FIXME() */", "crates/gossip/src/core.rs:1: a TODO or FIXME");
    assert_source_in_order("// TODO(ada): later\n");
    let house = House::new();
    house.plant("clippy.toml", "# TODO\n");
    house.assert_finds("clippy.toml:1: a TODO or FIXME");
}

#[test]
fn an_ignored_test_is_found() {
    let place = "crates/gossip/src/core.rs:1: an ignored test";
    assert_finds_in_source("#[ignore]\nfn f() {}\n", place);
    assert_finds_in_source("#[ignore = \"slow\"]\nfn f() {}\n", place);
    assert_finds_in_source("#[cfg_attr(miri, ignore)]\nfn f() {}\n", place);
    assert_finds_in_source("/// ```rust,ignore\n/// ```\nfn f() {}\n", place);
}

#[test]
fn tests_in_the_middle_of_a_source_file_are_found() {
    let place = |line: u8| format!("crates/gossip/src/core.rs:{line}: tests have a file");
    assert_finds_in_source("#[cfg(test)]\nmod tests {\n}\n", &place(2));
    assert_finds_in_source("#[cfg(test)] mod checks { }\n", &place(1));
    assert_finds_in_source("#[cfg(all(test, unix))]\n#[rustfmt::skip]\nmod more {\n}\n", &place(3));
    assert_finds_in_source("fn f() {}\npub(crate) mod tests {}\n", &place(2));
    assert_source_in_order("#[cfg(test)]\nmod tests;\n\nmod rooms {}\n");
    assert_source_in_order("#[cfg(test)]\nfn f() {}\nmod rooms {}\n");
    assert_source_in_order("#[cfg(feature = \"x\")]\nmod rooms {}\n");
    let house = House::new();
    house.plant("crates/gossip/tests/it.rs", "mod tests {}\n");
    house.assert_in_order();
}

#[test]
fn a_test_that_no_command_runs_is_found() {
    let house = House::new();
    house.plant("crates/gossip/src/core.rs", "#[cfg(test)]\nmod tests;\n");
    house.plant("crates/gossip/src/core/tests.rs", "");
    house.assert_in_order();
    house.plant_manifest("gossip", "quorate-gossip", "[lib]\ntest = false\n");
    house.assert_finds("crates/gossip/src/core.rs:1: no command runs this test");
}

#[test]
fn a_test_of_a_program_without_a_library_is_found() {
    let house = House::new();
    house.plant("tools/Cargo.toml", "[package]\nname = \"tools\"\nedition = \"2024\"\n[[bin]]\nname = \"tools\"\ntest = false\n");
    house.plant("tools/src/main.rs", "mod parts;\nfn main() {}\n");
    house.plant("tools/src/parts.rs", "#[tokio::test]\nasync fn it_works() {}\n");
    let manifest = std::fs::read_to_string(house.root().join("Cargo.toml")).unwrap();
    house.plant("Cargo.toml", &manifest.replace("\"crates/*\"", "\"crates/*\", \"tools\""));
    house.assert_finds("tools/src/parts.rs:1: no command runs this test");
}

#[test]
fn tests_of_a_program_are_no_part_of_the_library_beside_it() {
    let house = House::new();
    for name in ["one", "other"] {
        let source = format!("crates/gossip/src/bin/{name}/main.rs");
        house.plant(&source, "mod parts;\nfn main() {}\n");
        let part = format!("crates/gossip/src/bin/{name}/parts.rs");
        house.plant(&part, "#[cfg(all(test, unix))]\nmod tests;\n");
    }
    house.plant_manifest("gossip", "quorate-gossip", "[lib]\ntest = false\n");
    house.assert_in_order();
    let untested = "[lib]\ntest = false\n[[bin]]\nname = \"one\"\ntest = false\n";
    house.plant_manifest("gossip", "quorate-gossip", untested);
    house.assert_finds("crates/gossip/src/bin/one/parts.rs:1: no command runs this test");
}

#[test]
fn a_retried_test_is_found() {
    let house = House::new();
    house.plant(".config/nextest.toml", "[profile.default]\n# none\nretries = 0\n");
    house.assert_in_order();
    house.plant(".config/nextest.toml", "[profile.default]\nretries = 2\n");
    house.assert_finds(".config/nextest.toml:2: a retried test");
}

#[test]
fn a_hash_map_in_a_crate_is_found() {
    let place = "crates/gossip/src/core.rs:1: hash order";
    assert_finds_in_source("use std::collections::HashMap;\n", place);
    assert_finds_in_source("type A = std::collections::HashSet<u8>;\n", place);
}

#[test]
fn an_unbiased_select_is_found() {
    let place = "crates/gossip/src/core.rs:1: select! picks";
    assert_finds_in_source("tokio::select! {\n    x = y => {}\n}\n", place);
    assert_finds_in_source("select! { biased_one() => {} }\n", place);
    assert_source_in_order("tokio::select! {\n    // Why.\n    biased;\n    x = y => {}\n}\n");
    assert_source_in_order("fn select() { select_all!(x) }\n");
}

#[test]
fn a_bare_task_is_found() {
    assert_finds_in_source(
        "fn f() { tokio::spawn(x); }\n",
        "crates/gossip/src/core.rs:1: start tasks",
    );
    let house = House::new();
    house.plant("crates/types/src/runtime.rs", "fn f() { tokio::spawn(x); }\n");
    house.assert_in_order();
}

#[test]
fn strings_and_comments_are_no_code() {
    assert_source_in_order(
        "// HashMap and todo!() in words\n\
         const A: &str = \"HashMap \\\" todo!()\";\n\
         const B: &str = r#\"tokio::spawn \" select! {\"#;\n\
         const C: (char, char) = ('\"', '\\'');\n\
         /* nested /* HashMap */ HashMap */ fn f<'a>(x: &'a str) {}\n\
         const D: &[u8] = br\"\\\"; const E: u8 = b'\"';\n",
    );
    // What follows them is code again.
    assert_finds_in_source(
        "const A: (&str, char) = (\"\\\"\", '\\''); type B = HashMap<u8, u8>;\n",
        "crates/gossip/src/core.rs:1: hash order",
    );
}

#[test]
fn a_missing_readme_is_found() {
    let house = House::new();
    house.remove("crates/types/README.md");
    house.assert_finds("crates/types/README.md:1: every crate has a README.md");
}

#[test]
fn a_front_page_without_example_is_found() {
    let house = House::new();
    house.plant("crates/crdt/README.md", "# Only words\n");
    house.assert_finds("crates/crdt/README.md:1: a layer's front page");
}

#[test]
fn a_missing_front_page_is_found() {
    let house = House::new();
    house.plant("crates/crdt/src/lib.rs", "//! Other words.\n");
    house.assert_finds("crates/crdt/src/lib.rs:1: README.md is the crate's front page");
}

#[test]
fn a_missing_example_is_found() {
    let house = House::new();
    house.remove("crates/crdt/examples/it.rs");
    house.assert_finds("crates/crdt/examples/:1: a layer has an example");
}

#[test]
fn an_example_of_a_layer_that_needs_another_is_found() {
    let house = House::new();
    let example = "crates/crdt/examples/it.rs";
    // A word in a comment or a string is no use.
    let alone = "// Not quorate_raft.\nuse quorate_crdt::A;\nuse quorate_types::Blob;\n\
                 fn main() { println!(\"quorate_raft\"); }\n";
    house.plant(example, alone);
    house.assert_in_order();
    for other in ["quorate", "quorate_raft", "quorate_testkit"] {
        house.plant(example, &format!("use quorate_crdt::A;\nuse {other}::B;\n{alone}"));
        house.assert_finds(&format!(
            "{example}:2: an example of crdt uses quorate_crdt and quorate_types, not {other}"
        ));
        house.plant(example, &format!("fn main() {{\n    {other}::run()\n}}\n"));
        house.assert_finds(&format!("{example}:2: an example of crdt"));
    }
    house.plant(example, "fn main() {}\n");
    house.plant("crates/quorate/examples/it.rs", "use quorate_raft::B;\nfn main() {}\n");
    house.assert_in_order();
}

#[test]
fn a_path_of_a_machine_is_found() {
    for home in ["home", "root", "work", "Users"] {
        let house = House::new();
        house.plant("docs/page.md", &format!("fine\nsee /{home}/ada/notes\n"));
        house.assert_finds("docs/page.md:2: an absolute path");
    }
    let house = House::new();
    house.plant("docs/page.md", "see docs/home/page.md and https://example.org/work/\n");
    house.assert_in_order();
}

#[test]
fn a_dependency_without_a_reason_is_found() {
    let house = House::new();
    let manifest = std::fs::read_to_string(house.root().join("Cargo.toml")).unwrap();
    house.plant("Cargo.toml", &format!("{manifest}serde = \"1\"\nserde_json = \"1\"\n"));
    house.assert_finds("Cargo.toml:16: docs/dependencies.md gives no reason for serde_json");
}

#[test]
fn what_git_ignores_is_no_part_of_the_house() {
    let house = House::new();
    house.plant(".gitignore", "/target\n");
    house.plant("target/debug/notes.rs", "// TODO\n");
    house.assert_in_order();
}

#[test]
fn hooks_look_the_same_in_every_build() {
    let house = House::new();
    house.plant(
        "crates/raft/src/lib.rs",
        "#![doc = include_str!(\"../README.md\")]\n\n#[cfg(feature = \"simulation\")]\nfn f() {}\n",
    );
    house.assert_finds("crates/raft/src/lib.rs:3: only crates/types/src/fault.rs asks");
}

#[test]
fn replicated_machines_draw_no_chance() {
    let house = House::new();
    house.plant("crates/calvin/src/shard/gate.rs", "fn f() { if buggify!(\"a\") {} }\n");
    house.assert_finds("crates/calvin/src/shard/gate.rs:1: every replica runs this alike");
}

#[test]
fn a_site_has_a_name_of_its_own_on_its_line() {
    let house = House::new();
    house.plant("crates/raft/src/a.rs", "fn f() { if buggify!(\"a\") {} }\n");
    house.plant("crates/raft/src/b.rs", "fn f() {\n    sometimes!(\"a\", true);\n}\n");
    house.assert_finds(
        "crates/raft/src/b.rs:2: 'a' is the name of a site at crates/raft/src/a.rs:1",
    );
    house.plant("crates/raft/src/b.rs", "fn f() {\n    sometimes!(\n        \"b\"\n    );\n}\n");
    house.assert_finds("crates/raft/src/b.rs:2: the name of the site stands on the line");
}

#[test]
fn every_bug_with_a_name_is_planted() {
    let house = House::new();
    let hooks = "pub enum Canary {\n    /// Why.\n    VoteNotSynced,\n    SliceLost,\n}\n";
    house.plant("crates/types/src/fault.rs", hooks);
    let code = "fn f() {\n    if planted!(SliceLost) && !planted!(Other) {}\n}\n";
    house.plant("crates/calvin/src/a.rs", code);
    house.assert_finds("crates/types/src/fault.rs:3: VoteNotSynced is planted nowhere");
    house.plant("crates/raft/src/a.rs", "fn f() { if planted!(VoteNotSynced) {} }\n");
    house.assert_in_order();
}

#[test]
fn only_the_simulator_turns_hooks_on() {
    let house = House::new();
    let dependency =
        "[dependencies]\nquorate-types = { workspace = true, features = [\"simulation\"] }\n";
    house.plant_manifest("raft", "quorate-raft", dependency);
    house.assert_finds("crates/raft/Cargo.toml:6: only the simulator's package turns");
    let target = "[[test]]\nname = \"canaries\"\nrequired-features = [\"quorate-types/canary\"]\n";
    house.plant_manifest("raft", "quorate-raft", target);
    house.assert_in_order();
}
