//! The few things that are read from Markdown: fenced blocks, marked parts and links.

use anyhow::{Context as _, Result};

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The line of the opening fence, from 1.
    pub(crate) line: usize,
    /// What stands behind the opening fence: `rust`, `console`.
    pub(crate) info: String,
    /// The lines between the fences, each with its newline.
    pub(crate) text: String,
}

/// All fenced blocks, from the top.
pub(crate) fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in markdown.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                open = Some(Block { line: index + 1, info: info.trim().to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// A command in a `console` block and what it is said to print.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Transcript {
    /// The line behind the `$ `.
    pub(crate) command: String,
    /// The lines below it.
    pub(crate) output: String,
}

/// The commands of a `console` block.
pub(crate) fn transcripts(block: &Block) -> Vec<Transcript> {
    let mut transcripts: Vec<Transcript> = Vec::new();
    for line in block.text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            transcripts.push(Transcript { command: command.to_owned(), output: String::new() });
        } else if let Some(last) = transcripts.last_mut() {
            last.output.push_str(line);
            last.output.push('\n');
        }
    }
    transcripts
}

/// Targets of inline links, outside fenced blocks, with their lines.
pub(crate) fn links(markdown: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut fenced = false;
    for (index, line) in markdown.lines().enumerate() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let ends = line.match_indices("](").map(|(at, bracket)| &line[at + bracket.len()..]);
            links.extend(ends.filter_map(|rest| Some((index + 1, rest.split_once(')')?.0))));
        }
    }
    links
}

/// Puts `part` between the comments `<!-- name:begin -->` and `<!-- name:end -->`.
///
/// # Errors
///
/// If the comments are not there, in this order.
pub(crate) fn with_part(markdown: &str, name: &str, part: &str) -> Result<String> {
    let begin = format!("<!-- {name}:begin -->\n");
    let end = format!("<!-- {name}:end -->");
    let (before, rest) = markdown.split_once(&begin).with_context(|| format!("no {}", begin.trim_end()))?;
    let (_, after) =
        rest.split_once(&end).with_context(|| format!("no {end} behind {}", begin.trim_end()))?;
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", part.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n[x](docs/x.md) and [y](https://y)\n```console\n$ one\nfirst\nsecond\n$ two\n```\n\n```rust\n[n](o)\n```\n";

    #[test]
    fn blocks_and_transcripts() {
        let blocks = blocks(PAGE);
        assert_eq!(
            blocks.iter().map(|block| (block.line, &*block.info)).collect::<Vec<_>>(),
            [(3, "console"), (10, "rust")]
        );
        assert_eq!(
            transcripts(&blocks[0]),
            [
                Transcript { command: "one".to_owned(), output: "first\nsecond\n".to_owned() },
                Transcript { command: "two".to_owned(), output: String::new() },
            ]
        );
    }

    #[test]
    fn links_in_code_are_no_links() {
        assert_eq!(links(PAGE), [(2, "docs/x.md"), (2, "https://y")]);
    }

    #[test]
    fn a_part_is_replaced_between_its_marks() {
        let page = "a\n<!-- t:begin -->\nold\n<!-- t:end -->\nb\n";
        let new = with_part(page, "t", "| new |\n").unwrap();
        assert_eq!(new, "a\n<!-- t:begin -->\n\n| new |\n\n<!-- t:end -->\nb\n");
        assert_eq!(with_part(&new, "t", "| new |").unwrap(), new);
        assert!(with_part(page, "u", "").is_err());
    }
}
