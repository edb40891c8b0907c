use super::*;

/// A book of one page in `docs` beside the pages that every book has.
fn book(page: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in PAGES {
        std::fs::write(folder.path().join(name), "# Front page\n\n## What it is\n").unwrap();
    }
    std::fs::create_dir(folder.path().join("docs")).unwrap();
    std::fs::write(folder.path().join("docs/page.md"), page).unwrap();
    folder
}

fn broken_in(page: &str) -> Vec<String> {
    broken(book(page).path()).unwrap()
}

#[test]
fn links_that_resolve_are_fine() {
    let page = "# A page\n\n[up](../README.md), [here](page.md \"title\"), [top](#a-page),\n\
                [`code`](../README.md#what-it-is), [web](https://example.org/x), [folder](../docs)\n\n\
                [name]: ../ARCHITECTURE.md\n";
    assert_eq!(broken_in(page), Vec::<String>::new());
}

#[test]
fn a_link_to_a_missing_file_is_named_with_its_line() {
    assert_eq!(broken_in("# A page\n\n[x](gone.md)\n"), ["docs/page.md:3: there is no 'gone.md'"]);
    assert_eq!(broken_in("[x]: gone.md"), ["docs/page.md:1: there is no 'gone.md'"]);
}

#[test]
fn a_link_to_a_missing_heading_is_found() {
    let found = broken_in("[x](../README.md#what-it-was)");
    assert_eq!(found.len(), 1);
    assert!(found.iter().all(|message| message.contains("what-it-was")), "{found:?}");
}

#[test]
fn code_holds_no_links() {
    assert_eq!(broken_in("```\n[x](gone.md)\n```\nand `[y](gone.md)`\n"), Vec::<String>::new());
}

#[test]
fn a_repeated_heading_gets_a_number() {
    assert_eq!(
        anchors("# The same\n## The same\n### What, really?\n"),
        ["the-same", "the-same-1", "what-really"]
    );
}

#[test]
fn a_missing_front_page_is_an_error() {
    let folder = book("");
    std::fs::remove_file(folder.path().join("README.md")).unwrap();
    assert!(broken(folder.path()).unwrap_err().to_string().contains("README.md"));
}
