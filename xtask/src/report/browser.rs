//! A real browser that opens the report and says what it finds: errors, requests, text that does not fit.
//!
//! It is told what to do in the DevTools protocol, over two pipes: JSON with a zero byte after each message.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::servers::{install_packages, path_of};

/// What the browser's program may be called.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "chromium-headless-shell", "google-chrome"];

/// The Debian package that has it, and one that has letters.
const PACKAGES: [&str; 2] = ["chromium", "fonts-dejavu-core"];

/// How long it may take for one answer. Only what hangs takes that long.
const PATIENCE: Duration = Duration::from_secs(90);

/// Says where the browser is, and installs it before if it is missing and that is wanted.
///
/// # Errors
///
/// If there is none.
pub(crate) fn prepare(install: bool) -> Result<()> {
    if install && program().is_err() {
        install_packages(&PACKAGES)?;
    }
    eprintln!("browser: {}", program()?.display());
    Ok(())
}

fn program() -> Result<PathBuf> {
    PROGRAMS.iter().find_map(|program| path_of(program)).ok_or_else(|| {
        anyhow!(
            "a test opens the conformance report in a browser, and none of {} is installed; \
             `cargo xtask test --install` installs the package {}",
            PROGRAMS.join(", "),
            PACKAGES[0],
        )
    })
}

/// What a page is looked at with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) dark: bool,
}

/// A phone's and a desktop's.
pub(crate) const SCREENS: [Screen; 2] =
    [Screen { width: 390, height: 844, dark: true }, Screen { width: 1400, height: 900, dark: false }];

/// What a browser found on a page.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Errors of scripts, of the policy of the page, of anything.
    pub(crate) errors: Vec<String>,
    /// Addresses that were asked for beside the page itself.
    pub(crate) requests: Vec<String>,
    /// By how many pixels the page is wider than the screen, as it is and with everything on it opened.
    pub(crate) overflow: (u64, u64),
    /// Whether its script ran to the end.
    pub(crate) ready: bool,
    /// How many drawings are shown, and in how many of them a violation.
    pub(crate) drawings: u64,
    pub(crate) violations: u64,
}

impl Found {
    /// What no page may have.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut complaints: Vec<String> = self.errors.iter().map(|error| format!("error: {error}")).collect();
        complaints.extend(self.requests.iter().map(|request| format!("request: {request}")));
        if self.overflow != (0, 0) {
            complaints.push(format!("too wide by {:?} pixels", self.overflow));
        }
        if !self.ready {
            complaints.push("its script did not end".to_owned());
        }
        complaints
    }
}

/// Opens `page` on a screen, and takes pictures: of what is at an address on it, into a file.
///
/// # Errors
///
/// If there is no browser, or it does not do what it is told.
pub(crate) fn open(page: &Path, screen: Screen, pictures: &[(String, PathBuf)]) -> Result<Found> {
    let mut browser = Browser::start()?;
    let page = page.canonicalize().with_context(|| format!("there is no {}", page.display()))?;
    let url = format!("file://{}", page.display());
    for domain in ["Page", "Runtime", "Log", "Network"] {
        browser.ask(&format!("{domain}.enable"), &json!({}))?;
    }
    let Screen { width, height, dark } = screen;
    let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
    browser.ask("Emulation.setDeviceMetricsOverride", &metrics)?;
    let scheme = json!([{ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } }]);
    browser.ask("Emulation.setEmulatedMedia", &json!({ "features": scheme }))?;
    browser.ask("Page.navigate", &json!({ "url": url }))?;
    browser.until("Page.loadEventFired")?;
    // Against the screen, not against what the browser lays the page out for: it may take a page for one that was made for a desktop.
    let overflow = format!("Math.max(0, document.documentElement.scrollWidth - {width})");
    let mut found = Found { overflow: (browser.number(&overflow)?, 0), ..Found::default() };
    for (place, picture) in pictures {
        browser.number(&format!("location.hash = {}; 0", json!(place)))?;
        let shot = browser.ask("Page.captureScreenshot", &json!({ "captureBeyondViewport": false }))?;
        let data = shot["data"].as_str().context("a picture without data")?;
        fs::write(picture, from_base64(data)?)
            .with_context(|| format!("can't write {}", picture.display()))?;
    }
    let opened = "document.querySelectorAll('details').forEach((node) => { node.open = true; }); 0";
    browser.number(opened)?;
    found.overflow.1 = browser.number(&overflow)?;
    found.ready = browser.number("document.documentElement.dataset.ready === 'yes' ? 1 : 0")? == 1;
    found.drawings = browser.number("document.querySelectorAll('figure.timeline svg').length")?;
    found.violations = browser.number(VIOLATIONS)?;
    for event in &browser.events {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let asked = params["request"]["url"].as_str().unwrap_or_default();
                if !asked.starts_with(&url) && !asked.starts_with("data:") {
                    found.requests.push(asked.to_owned());
                }
            }
            "Runtime.exceptionThrown" => found.errors.push(params["exceptionDetails"].to_string()),
            "Log.entryAdded" => found.errors.push(params["entry"].to_string()),
            _ => {}
        }
    }
    browser.end()?;
    Ok(found)
}

/// Drawings in which a violation has a place of its own, and is not hidden.
const VIOLATIONS: &str = "[...document.querySelectorAll('figure.timeline svg')].filter((drawing) => \
     [...drawing.querySelectorAll('.violation line')].some((line) => line.getBoundingClientRect().height > 10)).length";

struct Browser {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Value>,
    session: Option<String>,
    last: u64,
    events: Vec<Value>,
    profile: PathBuf,
}

impl Browser {
    fn start() -> Result<Self> {
        let program = program()?;
        let profile = std::env::temp_dir().join(format!("locks-report-browser-{}", std::process::id()));
        // It wants its pipes as descriptors 3 and 4.
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec 3<&0 4>&1 </dev/null >/dev/null; exec \"$0\" \"$@\""])
            .arg(&program)
            .args([
                "--headless",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args(["--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking"])
            .args([
                "--disable-component-update",
                "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("can't start {}", program.display()))?;
        let orders = child.stdin.take().context("the browser takes no orders")?;
        let said = child.stdout.take().context("the browser says nothing")?;
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(said).split(0) {
                let message = message.ok().and_then(|message| serde_json::from_slice(&message).ok());
                // The end of the receiver, or of what makes sense, is the end of this.
                if message.is_none_or(|message| sender.send(message).is_err()) {
                    return;
                }
            }
        });
        let mut browser =
            Self { child, orders, answers, session: None, last: 0, events: Vec::new(), profile };
        let target = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", &attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        Ok(browser)
    }

    /// Gives an order and returns what came of it.
    fn ask(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.last += 1;
        let mut order = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            order["sessionId"] = json!(session);
        }
        self.orders
            .write_all(format!("{order}\0").as_bytes())
            .with_context(|| format!("telling {method}"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.next(method, deadline)?;
            if message["id"] == json!(self.last) {
                if let Some(error) = message.get("error") {
                    bail!("the browser refuses {method}: {error}");
                }
                return Ok(message["result"].clone());
            }
            self.events.push(message);
        }
    }

    /// Waits for an event, unless it has come already.
    fn until(&mut self, event: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.events.iter().any(|seen| seen["method"] == json!(event)) {
            let message = self.next(event, deadline)?;
            self.events.push(message);
        }
        Ok(())
    }

    fn next(&mut self, what: &str, deadline: Instant) -> Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.answers.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("{what}: the browser said nothing within {PATIENCE:?}"),
            RecvTimeoutError::Disconnected => anyhow!("{what}: the browser has ended"),
        })
    }

    /// The value of an expression in the page.
    fn number(&mut self, expression: &str) -> Result<u64> {
        let answer =
            self.ask("Runtime.evaluate", &json!({ "expression": expression, "returnByValue": true }))?;
        let value = answer["result"]["value"].as_f64();
        Ok(value.with_context(|| format!("{expression}: {answer}"))?.ceil() as u64)
    }

    /// Ends it and removes what it has written.
    fn end(mut self) -> Result<()> {
        self.session = None;
        self.ask("Browser.close", &json!({}))?;
        self.child.wait().context("the browser does not end")?;
        fs::remove_dir_all(&self.profile).with_context(|| format!("can't remove {}", self.profile.display()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It has ended, unless something went wrong; then that is what is told.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

fn from_base64(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut have) = (0_u32, 0_u32);
    for c in text.bytes().filter(|c| *c != b'=') {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => bail!("{:?} is no digit of base 64", char::from(other)),
        };
        bits = bits << 6 | u32::from(digit);
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is never found proves nothing.
    #[test]
    fn what_is_wrong_with_a_page_is_found() {
        const WRONG: &str = "<!doctype html><meta name=\"viewport\" content=\"width=device-width\"><img src=\"http://nowhere.invalid/x.png\"><p style=\"width: 500px\">wide\
                             <details><p style=\"width: 700px\">wider</details><script>throw new Error(\"on purpose\")</script>";
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("page.html");
        fs::write(&page, WRONG).unwrap();
        let [phone, desktop] = SCREENS.map(|screen| open(&page, screen, &[]).unwrap());
        assert_eq!(phone.requests, ["http://nowhere.invalid/x.png"], "{phone:?}");
        assert!(phone.errors.iter().any(|error| error.contains("on purpose")), "{phone:?}");
        assert!(phone.overflow.0 >= 110 && phone.overflow.1 > phone.overflow.0 + 150, "{phone:?}");
        assert!(!phone.ready && phone.complaints().len() >= 4, "{phone:?}");
        assert_eq!(desktop.overflow, (0, 0), "{desktop:?}");
    }

    #[test]
    fn base64_comes_back() {
        assert_eq!(from_base64("bG9ja3M=").unwrap(), b"locks");
        assert_eq!(from_base64("AP8Q").unwrap(), [0, 255, 16]);
        assert!(from_base64("a?").is_err());
    }
}
