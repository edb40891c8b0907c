use super::QuorateRuntime;

#[test]
fn the_runtime_passes_the_suite_of_openraft() {
    openraft_rt::testing::Suite::<QuorateRuntime>::test_all();
}
