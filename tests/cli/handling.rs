//! Completions, man pages, `make install`, colours, and `-q` on every verb.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cli::archives::small;
use crate::support::servers::{is_ci, skipped};
use crate::support::tool::{self, Tool, run};

fn has(program: &str) -> bool {
    let here = Command::new(program).arg("--version").output().is_ok();
    assert!(
        here || !is_ci() || program != "bash",
        "{program} is missing"
    );
    if !here {
        skipped(&format!(
            "{program} is not installed: its completions are not tried"
        ));
    }
    here
}

#[test]
fn completions_are_scripts_that_their_shells_take() {
    let directory = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish"] {
        let script = Tool::new(&["completions", shell]).run().success();
        assert_eq!(script.stderr, "");
        let text = String::from_utf8(script.stdout).expect("text");
        for word in [
            "export",
            "extract",
            "salvage",
            "--on-conflict",
            "converge",
            "--age-identity",
        ] {
            assert!(
                text.contains(word.trim_start_matches("--")),
                "{shell}: {word}"
            );
        }
        let file = directory.path().join(shell);
        fs::write(&file, text).expect("written");
        if has(shell) {
            let flag = if shell == "fish" {
                "--no-execute"
            } else {
                "-n"
            };
            let checked = Command::new(shell).arg(flag).arg(&file).status();
            assert!(checked.expect("it runs").success(), "{shell}");
        }
    }
    run(&["completions", "tcsh"], b"").expect_code(2);
}

#[test]
fn bash_completes_verbs_and_flags() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("completions");
    let script = Tool::new(&["completions", "bash"]).run().success();
    fs::write(&file, script.stdout).expect("written");
    for (words, wanted) in [
        ("redis-migrate ex", "export"),
        ("redis-migrate ex", "extract"),
        ("redis-migrate sal", "salvage"),
        ("redis-migrate di", "diff"),
        ("redis-migrate salvage --pl", "--plain"),
        ("redis-migrate extract --age-id", "--age-identity"),
        ("redis-migrate import --on-c", "--on-conflict"),
        ("redis-migrate import --on-conflict ", "replace"),
    ] {
        let script = format!(
            "source {}; COMP_WORDS=({words}{}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _redis__migrate redis-migrate \"${{COMP_WORDS[COMP_CWORD]}}\" \
             \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            file.display(),
            if words.ends_with(' ') { "\"\"" } else { "" },
        );
        let output = Command::new("bash").args(["-c", &script]).output();
        let output = output.expect("bash runs");
        let offered = String::from_utf8_lossy(&output.stdout).into_owned();
        let offered: Vec<&str> = offered.split_whitespace().collect();
        assert!(offered.contains(&wanted), "{words}: {offered:?}");
    }
}

fn man_pages(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn there_is_a_man_page_for_each_verb_with_its_examples() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join("man/man1");
    Tool::new(&["man-pages"]).arg(&place).run().success();
    let names = man_pages(&place);
    for verb in [
        "",
        "-export",
        "-import",
        "-copy",
        "-convert",
        "-verify",
        "-diff",
        "-list",
        "-inspect",
        "-report",
        "-extract",
        "-salvage",
        "-doctor",
        "-completions",
    ] {
        assert!(
            names.contains(&format!("redis-migrate{verb}.1")),
            "{names:?}"
        );
    }
    assert!(!names.iter().any(|name| name.contains("help")), "{names:?}");
    for name in names {
        let page = fs::read_to_string(place.join(&name)).expect("text");
        assert!(page.contains(".SH EXAMPLES"), "{name}");
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
        assert!(page.contains("redis\\-migrate"), "{name}");
    }
}

#[test]
fn make_install_puts_everything_in_its_place_and_uninstall_takes_it_away() {
    let directory = tempfile::tempdir().expect("a directory");
    // The rules write to target/, which this run may not have to itself.
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).expect("made");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(root.join("Makefile"), tree.join("Makefile")).expect("copied");
    let make = |goal: &str| {
        let output = Command::new("make")
            .args(["-s", goal, "PREFIX=/usr"])
            .arg(format!(
                "DESTDIR={}",
                directory.path().join("dest").display()
            ))
            .arg(format!("BINARY={}", tool::path().display()))
            .current_dir(&tree)
            .output()
            .expect("make runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
    };
    make("install");
    let usr = directory.path().join("dest/usr");
    let installed = [
        "bin/redis-migrate",
        "share/man/man1/redis-migrate.1",
        "share/man/man1/redis-migrate-export.1",
        "share/bash-completion/completions/redis-migrate",
        "share/zsh/site-functions/_redis-migrate",
        "share/fish/vendor_completions.d/redis-migrate.fish",
    ];
    for name in installed {
        assert!(usr.join(name).metadata().expect(name).len() > 0, "{name}");
    }
    let version = Command::new(usr.join(installed[0])).arg("-V").status();
    assert!(version.expect("it runs").success());
    make("uninstall");
    for name in installed {
        assert!(!usr.join(name).exists(), "{name}");
    }
}

#[test]
fn quiet_says_nothing_when_all_is_well_and_the_error_when_not() {
    let archive = small();
    for verb in ["verify", "list", "inspect", "report"] {
        let output = run(&[verb, "-q"], &archive).success();
        assert!(output.stdout.is_empty(), "{verb}");
        assert_eq!(output.stderr, "", "{verb}");
        let half = &archive[..archive.len() / 2];
        let output = run(&[verb, "--quiet"], half).expect_code(10);
        assert!(output.stderr.contains("error:"), "{verb}");
    }
}

/// What a terminal would show, from `script`, which gives a program one.
fn on_a_terminal(arguments: &str, variables: &[(&str, &str)]) -> Option<String> {
    let here = Command::new("script").arg("--version").output().is_ok();
    assert!(here || !is_ci(), "script (package bsdutils) is missing");
    if !here {
        skipped("script is not installed: colours are not tried");
        return None;
    }
    let line = format!("{} {arguments}", tool::path().display());
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]);
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    // With it every terminal is taken for one that knows colours.
    command.env_remove("CI");
    command.envs(variables.iter().copied());
    command.stdin(std::process::Stdio::null());
    let output = command.output().expect("script runs");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn errors_have_colours_on_a_terminal_and_without_no_color_only() {
    for arguments in ["verify /no/such/file", "frobnicate"] {
        let Some(coloured) = on_a_terminal(arguments, &[]) else {
            return;
        };
        assert!(coloured.contains("\x1b["), "{coloured:?}");
        for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let plain = on_a_terminal(arguments, &[variable]).expect("it ran before");
            assert!(plain.contains("error:"), "{plain:?}");
            assert!(!plain.contains("\x1b["), "{variable:?}: {plain:?}");
        }
        let words: Vec<&str> = arguments.split(' ').collect();
        let output = Tool::new(&words).run().expect_code(2);
        assert!(!output.stderr.contains('\x1b'), "{}", output.stderr);
    }
}
