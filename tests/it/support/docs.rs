//! Reads examples from the documentation, so that tests can run them.

use std::{fs, path::Path};

/// The one code block of a page in docs/ that contains `words`.
pub fn block(page: &str, words: &str) -> String {
    let text = file(&format!("docs/{page}"));
    let blocks: Vec<_> = text.split("\n```").skip(1).step_by(2).filter(|block| block.contains(words)).collect();
    assert_eq!(blocks.len(), 1, "blocks with {words:?} in {page}");
    // The first line is the language.
    blocks[0].split_once('\n').unwrap().1.to_owned()
}

/// The text of a file of this repository.
pub fn file(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
