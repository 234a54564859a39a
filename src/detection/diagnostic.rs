//! What is wrong with a file, where, and how to mend it. Rendering lives in `cli`.

use std::sync::Arc;

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// The file works, but not as well as it should.
    Warning,
    /// The file (or the part that is named) cannot be used.
    Error,
}

impl Level {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// A stretch of one file. Line and column count from 1, in characters; line 0 means the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    pub line: u32,
    pub column: u32,
    /// Characters, on the first line only; at least 1 when shown.
    pub length: u32,
}

impl Span {
    /// The file as a whole.
    pub const WHOLE: Span = Span { line: 0, column: 0, length: 0 };

    /// One character.
    pub fn at(line: u32, column: u32) -> Span {
        Span { line, column, length: 1 }
    }
}

/// One finding of loader or linter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub code: Code,
    pub level: Level,
    /// The path as the user gave it.
    pub file: Arc<str>,
    pub span: Span,
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// The text of the file where it could be read, for the snippet.
    pub source: Option<Arc<str>>,
}

impl Diagnostic {
    /// A finding of the code's usual level, without text to show.
    pub fn new(code: Code, file: &Arc<str>, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            level: code.level(),
            file: Arc::clone(file),
            span,
            message: message.into(),
            help: None,
            source: None,
        }
    }

    /// With advice.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// With advice, if there is any.
    pub fn maybe_help(mut self, help: Option<String>) -> Diagnostic {
        self.help = help;
        self
    }

    /// With the text of its file.
    pub fn source(mut self, text: &Arc<str>) -> Diagnostic {
        self.source = Some(Arc::clone(text));
        self
    }
}

macro_rules! codes {
    ($( $id:ident $text:literal $level:ident $doc:literal; )*) => {
        /// What kind of finding; the text is stable, so that a report can be filtered by it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $( #[doc = $doc] $id, )* }

        impl Code {
            /// Every code, errors before warnings.
            pub const ALL: &'static [Code] = &[ $( Code::$id, )* ];

            /// `KT0003`.
            pub fn as_str(self) -> &'static str {
                match self { $( Code::$id => $text, )* }
            }

            /// How bad such a finding is.
            pub fn level(self) -> Level {
                match self { $( Code::$id => Level::$level, )* }
            }

            /// What it means, in a few words.
            pub fn doc(self) -> &'static str {
                match self { $( Code::$id => $doc, )* }
            }
        }
    };
}

codes! {
    Unreadable "KT0001" Error "file cannot be read";
    Syntax "KT0002" Error "not valid YAML or JSON";
    UnknownKey "KT0003" Error "unknown key";
    DuplicateKey "KT0004" Error "key given twice";
    MissingKey "KT0005" Error "required key missing";
    WrongType "KT0006" Error "value of the wrong type";
    BadValue "KT0007" Error "value not allowed";
    Sql "KT0008" Error "SQL cannot be planned";
    Attack "KT0009" Error "ATT&CK id unknown, revoked or in the wrong tactic";
    DuplicateId "KT0010" Error "id used by two detections";
    FileName "KT0011" Error "file name differs from the id";
    Folder "KT0012" Error "folder is not one of the detection's tactics";
    UnknownColumn "KT0013" Error "column unknown";
    Sample "KT0014" Error "sample event unknown or unusable";
    Exception "KT0015" Error "exception cannot be used";
    Empty "KT0016" Error "nothing to check";
    FewFiring "KT0101" Warning "no test that fires";
    FewQuiet "KT0102" Warning "fewer than two tests that stay quiet";
    NoTriage "KT0103" Warning "no triage";
    NoFalsePositives "KT0104" Warning "no false positives named";
    DuplicateTest "KT0105" Warning "two tests of one name";
    DearLike "KT0106" Warning "LIKE searches large bodies of every event";
    SilentNegation "KT0107" Warning "negation is null where a cloud does not deliver the column";
    AttemptOrSuccess "KT0108" Warning "does not say whether it wants attempts or successes";
    General "KT0109" Warning "not a plain filter";
    OddFolder "KT0110" Warning "folder is nearly a tactic";
    Expired "KT0111" Warning "exception has expired";
    UnknownDetection "KT0112" Warning "exception names no loaded detection";
    DuplicateEntry "KT0113" Warning "list entry given twice";
    UsesWithoutBody "KT0114" Warning "posture or admission use without a look at the object";
    ResourceWithoutGroup "KT0115" Warning "resource compared without its API group";
}

/// The closest of some known words, where one is close enough to be what was meant.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = word.to_lowercase();
    let score = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        // Of two that are as many slips away, the one that begins alike.
        let close = strsim::normalized_damerau_levenshtein(&wanted, &candidate);
        (close >= 0.6).then(|| close + 0.01 * strsim::jaro_winkler(&wanted, &candidate))
    };
    let scored = known.into_iter().filter_map(|candidate| Some((score(candidate)?, candidate)));
    scored.max_by(|left, right| left.0.total_cmp(&right.0)).map(|(_, candidate)| candidate)
}

/// The known word of which this one is a slip: closer than what [`did_you_mean`] guesses.
pub fn nearly<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    did_you_mean(word, known).filter(|known| strsim::normalized_damerau_levenshtein(word, known) >= 0.8)
}

/// `did you mean 'x'?` for a help line.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    did_you_mean(word, known).map(|candidate| format!("did you mean '{candidate}'?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_errors_come_first() {
        let texts: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        let mut sorted = texts.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(texts, sorted);
    }

    #[test]
    fn a_typo_finds_its_word_and_nonsense_finds_none() {
        let known = ["severity", "status", "summary"];
        assert_eq!(did_you_mean("severty", known), Some("severity"));
        assert_eq!(did_you_mean("xyz", known), None);
        assert_eq!(nearly("persistance", ["persistence", "execution"]), Some("persistence"));
        assert_eq!(nearly("detections", ["execution"]), None);
    }
}
