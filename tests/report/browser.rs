//! The page in Chromium: it is read as it was meant, asks for nothing, and reports no error.

use std::path::Path;
use std::process::{Command, Output};

use crate::report::figures::{assert_same_figures, numbers};
use crate::report::{Reported, archives, sample};
use crate::support::servers::{is_ci, skipped};

/// The browser's name, if there is one.
fn browser() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok());
    assert!(found.is_some() || !is_ci(), "Chromium is not installed");
    if found.is_none() {
        skipped("Chromium is not installed: the page is not looked at in a browser");
    }
    found
}

fn look(browser: &str, page: &Path, flags: &[&str]) -> Output {
    let profile = tempfile::tempdir().expect("a directory");
    Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
        ])
        .args([
            "--enable-logging=stderr",
            "--log-level=0",
            "--virtual-time-budget=2000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(flags)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser runs")
}

/// What the page's console said. A request that the page's policy forbids is an error there.
fn console(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.contains(":CONSOLE"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_page_is_whole_asks_for_nothing_and_has_the_figures_of_the_json() {
    let Some(browser) = browser() else { return };
    let reported = Reported::of(&sample());
    let output = look(browser, &reported.page(), &["--dump-dom"]);
    let dom = String::from_utf8_lossy(&output.stdout);
    assert!(
        dom.contains("</html>"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(console(&output), [""; 0]);
    assert_same_figures(&dom, &reported.json);
    assert!(numbers(&dom, "t-prefixes").len() > 3);
    assert!(!dom.contains("<title>owned"), "a name ran as a script");
    assert_eq!(dom.matches("<img").count(), 0);
    assert_eq!(dom.matches("<script").count(), 1);
}

#[test]
fn an_error_would_be_seen() {
    let Some(browser) = browser() else { return };
    let reported = Reported::of(&archives::small());
    let page = crate::report::read(&reported.page());
    let broken = reported.page().with_file_name("broken.html");
    for bad in [
        "<script>document.title = 'ran'</script>",
        "<img src=\"http://127.0.0.1:9/x.png\">",
        "<link rel=\"stylesheet\" href=\"http://127.0.0.1:9/x.css\">",
    ] {
        std::fs::write(&broken, page.replace("</main>", &format!("{bad}</main>")))
            .expect("written");
        let output = look(browser, &broken, &["--dump-dom"]);
        assert_ne!(console(&output), [""; 0], "{bad} went unnoticed");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("<title>ran"));
    }
}

#[test]
fn it_fits_a_phone_and_a_desk() {
    let Some(browser) = browser() else { return };
    let reported = Reported::of(&sample());
    // A frame of a phone's width says how wide its page is.
    let frame = reported.page().with_file_name("frame.html");
    for width in [360, 390, 1280] {
        let text = format!(
            "<iframe id=f src=report.html style='width:{width}px;height:800px;border:0'></iframe>\
             <script>f.onload = () => document.title = 'wide ' + \
             f.contentDocument.documentElement.scrollWidth</script>"
        );
        std::fs::write(&frame, text).expect("written");
        let output = look(
            browser,
            &frame,
            &["--dump-dom", "--allow-file-access-from-files"],
        );
        let dom = String::from_utf8_lossy(&output.stdout);
        let wide = dom.split("<title>wide ").nth(1);
        let wide = wide.and_then(|rest| rest.split('<').next()?.parse::<u32>().ok());
        assert!(
            wide.is_some_and(|wide| wide > 0 && wide <= width),
            "{width}: {dom}"
        );
    }
}
