use super::*;

const TOP: Grammar = Grammar {
    name: "tool",
    about: "Does things.",
    options: &[Opt {
        name: "root",
        about: "Where.",
        value: "DIR",
        ..Opt::FLAG
    }],
    commands: &[
        Grammar {
            name: "make",
            about: "Make a thing.",
            examples: &["tool make it"],
            options: &[
                Opt {
                    name: "size",
                    about: "How large.",
                    value: "SIZE",
                    words: &["small", "large"],
                    ..Opt::FLAG
                },
                Opt {
                    name: "colour",
                    about: "May come again.",
                    value: "COLOUR",
                    repeats: true,
                    ..Opt::FLAG
                },
                Opt {
                    name: "quiet",
                    about: "Say nothing.",
                    excludes: &["colour"],
                    ..Opt::FLAG
                },
                Opt {
                    name: "still",
                    about: "Say even less.",
                    requires: "quiet",
                    ..Opt::FLAG
                },
            ],
            positionals: &[Positional {
                name: "THING",
                about: "Which thing.",
                count: Count::One,
            }],
            ..Grammar::NEW
        },
        Grammar {
            name: "all",
            about: "Commands of a command.",
            commands: &[
                Grammar {
                    name: "some",
                    about: "Perhaps one.",
                    positionals: &[Positional {
                        name: "THING",
                        about: "Which thing.",
                        count: Count::Optional,
                    }],
                    ..Grammar::NEW
                },
                Grammar {
                    name: "many",
                    about: "Several.",
                    options: &[Opt {
                        name: "none",
                        about: "Not one.",
                        ..Opt::FLAG
                    }],
                    positionals: &[
                        Positional {
                            name: "FIRST",
                            about: "The first.",
                            count: Count::One,
                        },
                        Positional {
                            name: "MORE",
                            about: "The others.",
                            count: Count::ManyUnless("none"),
                        },
                    ],
                    ..Grammar::NEW
                },
            ],
            ..Grammar::NEW
        },
    ],
    ..Grammar::NEW
};

fn typed(line: &str) -> Result<Line, Stop> {
    read(&TOP, line.split_whitespace().map(OsString::from))
}

fn understood(line: &str) -> Line {
    typed(line).unwrap_or_else(|stop| panic!("{line}: {stop:?}"))
}

fn mistake(line: &str) -> String {
    match typed(line) {
        Err(Stop::Mistake(text)) => text.lines().next().unwrap_or_default().to_owned(),
        other => panic!("{line}: {other:?}"),
    }
}

fn help(line: &str) -> String {
    match typed(line) {
        Err(Stop::Help(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn what_is_typed_is_found_by_its_name_and_by_its_place() {
    let line = understood("tool make it --size large --colour=red --colour blue");
    assert_eq!((line.command(0), line.command(1)), ("make", ""));
    assert_eq!(line.word(), Some("it"));
    assert_eq!(line.text("size").as_deref(), Some("large"));
    assert_eq!(
        line.paths("colour"),
        [PathBuf::from("red"), PathBuf::from("blue")]
    );
    assert!(!line.has("quiet") && line.text("root").is_none());
    let line = understood("tool all many a b c");
    assert_eq!((line.command(0), line.command(1)), ("all", "many"));
    assert_eq!(line.words(), ["a", "b", "c"]);
}

#[test]
fn options_of_the_whole_program_come_before_and_after_its_commands() {
    for line in [
        "tool --root /x all some",
        "tool all --root /x some",
        "tool all some --root=/x",
    ] {
        assert_eq!(understood(line).path("root"), Some("/x".into()), "{line}");
    }
}

#[test]
fn behind_two_dashes_everything_is_a_word() {
    let line = understood("tool all many a -- --none -x");
    assert_eq!(line.words(), ["a", "--none", "-x"]);
    assert!(!line.has("none"));
}

#[test]
fn each_mistake_is_told_by_its_name_and_no_value_is_repeated() {
    for (line, sentence) in [
        ("tool", "a command is missing: make, all"),
        ("tool all", "a command is missing: some, many"),
        ("tool dance", "there is no command “dance” here"),
        ("tool all make", "there is no command “make” here"),
        ("tool --quiet make it", "there is no option “--quiet” here"),
        ("tool make it --none", "there is no option “--none” here"),
        ("tool make it -x", "there is no option “-x”"),
        (
            "tool make it --version",
            "there is no option “--version” here",
        ),
        ("tool make", "THING is missing"),
        ("tool make it that", "“that” is one argument too many"),
        ("tool all some a b", "“b” is one argument too many"),
        ("tool all many a", "MORE is missing"),
        (
            "tool all many a b --none",
            "--none and MORE can't be said together",
        ),
        ("tool make it --size", "the value of --size is missing"),
        (
            "tool make it --size huge",
            "--size takes one of these: small, large",
        ),
        (
            "tool make it --size small --size large",
            "--size can be said once only",
        ),
        ("tool make it --quiet=hunter2", "--quiet takes no value"),
        (
            "tool make it --quiet --colour red",
            "--quiet and --colour can't be said together",
        ),
        (
            "tool make it --still",
            "--still means nothing without --quiet",
        ),
    ] {
        assert_eq!(mistake(line), sentence, "{line}");
    }
    understood("tool all many a --none");
    understood("tool make it --quiet --still");
    understood("tool all some");
}

#[test]
fn words_that_are_no_text_are_refused_and_paths_that_are_none_are_taken() {
    use std::os::unix::ffi::OsStringExt as _;
    let odd = || OsString::from_vec(vec![b'/', 0xff]);
    let words = |line: &[&str]| line.iter().map(OsString::from).collect::<Vec<_>>();
    let line = [
        words(&["tool", "--root"]),
        vec![odd()],
        words(&["all", "some"]),
    ]
    .concat();
    let line = read(&TOP, line).expect("a path of any bytes");
    assert_eq!(line.path("root"), Some(odd().into()));
    let line = [words(&["tool", "make"]), vec![odd()]].concat();
    assert!(matches!(read(&TOP, line), Err(Stop::Mistake(_))));
    let line = [words(&["tool", "make", "it", "--size"]), vec![odd()]].concat();
    assert!(matches!(read(&TOP, line), Err(Stop::Mistake(_))));
}

#[test]
fn help_is_there_for_the_program_and_for_each_command_wherever_it_is_asked_for() {
    let top = help("tool --help");
    for words in [
        "Does things.\n",
        "Usage: tool [OPTIONS] <COMMAND>\n",
        "  make  Make a thing.\n",
        "  --root <DIR>  Where.\n",
        "  --version     Print the version (also: -V).\n",
    ] {
        assert!(top.contains(words), "{words:?} is not in {top}");
    }
    assert_eq!(help("tool -h"), top);
    let make = help("tool make it --size small -h");
    for words in [
        "Usage: tool make [OPTIONS] <THING>\n",
        "  <THING>  Which thing.\n",
        "  --size <SIZE>      How large. One of: small, large.\n",
        "  --root <DIR>       Where.\n",
        "Examples:\n  tool make it\n",
    ] {
        assert!(make.contains(words), "{words:?} is not in {make}");
    }
    assert!(!make.contains("--version"), "{make}");
    assert!(help("tool all many --help").contains("<FIRST> [MORE]..."));
    assert!(matches!(typed("tool -V"), Err(Stop::Version)));
    let told = match typed("tool make") {
        Err(Stop::Mistake(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(
        told.ends_with(
            "\nUsage: tool make [OPTIONS] <THING>\n“tool make --help” says what can be typed."
        ),
        "{told}"
    );
}

#[test]
fn no_line_of_help_is_longer_than_it_may_be_and_no_word_is_lost() {
    const LONG: &str = "Words of four and five letters come after each other until the line has no more room for them, and then the next line begins under the first.";
    const WIDE: Grammar = Grammar {
        name: "tool",
        about: LONG,
        options: &[
            Opt {
                name: "a",
                about: LONG,
                ..Opt::FLAG
            },
            Opt {
                name: "an-option-with-a-very-long-name-indeed",
                about: LONG,
                value: "VALUE",
                ..Opt::FLAG
            },
        ],
        ..Grammar::NEW
    };
    let Err(Stop::Help(text)) = read(&WIDE, ["tool", "--help"].map(OsString::from)) else {
        panic!("no help");
    };
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line:?}");
        assert_eq!(line.trim_end(), line);
    }
    let all = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(all.matches(LONG).count(), 3, "{text}");
}
