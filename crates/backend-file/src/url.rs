//! `file:` URLs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use locks_api::spi::UrlOptions;
use locks_api::{Error, ErrorKind, Result};
use percent_encoding::percent_decode_str;

use crate::options::{FileOptions, Share};

/// What a URL asks for.
#[derive(Debug)]
pub(crate) struct FileUrl {
    /// The directory; `None` for the default one.
    pub(crate) dir: Option<PathBuf>,
    pub(crate) options: FileOptions,
}

/// Takes apart `file:`, `file:/dir` or `file:///dir`, with options behind a `?`.
///
/// # Errors
///
/// [`ErrorKind::Config`], which names what is wrong. Does no I/O.
pub(crate) fn parse(url: &str) -> Result<FileUrl> {
    let wrong = |complaint: String| Error::new(ErrorKind::Config, format!("{complaint} in {url:?}"));
    let rest = match url.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("file") => rest,
        _ => return Err(wrong("the scheme is not \"file:\"".to_owned())),
    };
    if rest.contains('#') {
        return Err(wrong("a URL of locks has no fragment; write '#' as %23".to_owned()));
    }
    let (location, query) = match rest.split_once('?') {
        Some((location, query)) => (location, Some(query)),
        None => (rest, None),
    };
    let path = match location.strip_prefix("//") {
        None => location,
        Some(path) if path.starts_with('/') => path,
        Some(authority) => {
            let host = authority.split('/').next().unwrap_or_default();
            return Err(wrong(if host.is_empty() {
                "there is no path; write file:/dir, or file: for the default directory,".to_owned()
            } else {
                format!("a file URL has no host, and {host:?} would be one; write file:/dir")
            }));
        }
    };
    let dir = match path {
        "" => None,
        path if !path.starts_with('/') => {
            return Err(wrong(format!(
                "the path {path:?} is relative; write an absolute one, as in file:/dir,"
            )));
        }
        path => {
            let bytes: Vec<u8> = percent_decode_str(path).collect();
            if bytes.contains(&0) {
                return Err(wrong("the path holds a NUL".to_owned()));
            }
            Some(PathBuf::from(OsString::from_vec(bytes)))
        }
    };
    let options = options(query.unwrap_or_default()).map_err(|error| wrong(error.to_string()))?;
    Ok(FileUrl { dir, options })
}

fn options(query: &str) -> Result<FileOptions> {
    let pairs = query.split('&').filter(|option| !option.is_empty());
    let pairs = pairs.map(|option| option.split_once('=').unwrap_or((option, "")));
    let mut given = UrlOptions::new(pairs.map(|(name, value)| (decoded(name), decoded(value))))?;
    let wrong = |complaint: String| Err(Error::new(ErrorKind::Config, complaint));
    let default = FileOptions::default();
    let options = FileOptions {
        durable: given.on_or_off("durable")?.unwrap_or(default.durable),
        allow_network_fs: given.on_or_off("allow_network_fs")?.unwrap_or(default.allow_network_fs),
        paths: match given.text("names").as_deref() {
            None => default.paths,
            Some("paths") => true,
            Some(other) => {
                return wrong(format!("the option \"names\" can only be \"paths\", not {other:?},"));
            }
        },
        share: match given.text("share").as_deref() {
            None => default.share,
            Some("group") => Some(Share::Group),
            Some("all") => Some(Share::All),
            Some(other) => {
                return wrong(format!("the option \"share\" is \"group\" or \"all\", not {other:?},"));
            }
        },
    };
    given.finish()?;
    Ok(options)
}

/// What is no UTF-8 is none of the names and values that there are, and is refused as such.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_leads_to_its_directory() {
        for (url, dir) in [
            ("file:", None),
            ("file:?durable=on", None),
            ("file:/var/lib/locks", Some("/var/lib/locks")),
            ("file:///var/lib/locks", Some("/var/lib/locks")),
            ("FILE:/x", Some("/x")),
            ("file:/a%20b/%C3%A9%3F", Some("/a b/é?")),
            ("file:/x?", Some("/x")),
        ] {
            assert_eq!(parse(url).unwrap().dir, dir.map(PathBuf::from), "{url}");
        }
        let parsed = parse("file:/x?durable=true&allow_network_fs=o%6E").unwrap();
        assert_eq!(parsed.options, FileOptions::default().durable(true).allow_network_fs(true));
        assert_eq!(parse("file:/x?durable=off").unwrap().options, FileOptions::default());
        assert_eq!(parse("file:?names=paths").unwrap().options, FileOptions::default().paths(true));
        for (url, share) in [("file:/x?share=group", Share::Group), ("file:/x?share=all", Share::All)] {
            assert_eq!(parse(url).unwrap().options, FileOptions::default().share(share));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, complaint) in [
            ("files:/x", "scheme"),
            ("/x", "scheme"),
            ("file:x/y", "\"x/y\" is relative"),
            ("file:./x", "relative"),
            ("file:~/x", "relative"),
            ("file://host/x", "\"host\""),
            ("file://localhost/x", "\"localhost\""),
            ("file://", "no path"),
            ("file:/x?fast=on", "no option \"fast\"; there are durable, allow_network_fs, names, share"),
            ("file:/x?durable=yes", "\"durable\" is on or off, not \"yes\""),
            ("file:/x?durable", "\"durable\" is on or off"),
            ("file:/x?durable=on&durable=on", "twice"),
            ("file:/x?names=any", "\"names\" can only be \"paths\", not \"any\""),
            ("file:/x?share=me", "\"share\" is \"group\" or \"all\", not \"me\""),
            ("file:/x#y", "%23"),
            ("file:/x%00y", "NUL"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(error.to_string().contains(complaint), "{url}: {error}");
            assert!(error.to_string().contains(url), "{error}");
        }
    }
}
