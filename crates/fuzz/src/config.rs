//! Any text as pgrotate.toml.

use miette::{Diagnostic, LabeledSpan, Report};
use pgrotate::fuzzing;

/// A text is a configuration whose environments all have a plan without a defect, or its mistakes are shown where they are.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // The program would open these: a terminal or an endless device says nothing about the text.
    if ["/dev/", "/proc/", "/sys/"].iter().any(|folder| text.contains(folder)) {
        return;
    }
    match fuzzing::config(text) {
        Ok(plans) => {
            for plan in plans {
                assert_eq!(plan.defect(), None);
                assert_eq!(plan.of_kind("install").count(), 1, "a rotation changes the server once");
            }
        }
        Err(report) => shown(text, &report),
    }
}

/// Every label lies inside of the text and at whole characters, and the picture can be drawn.
fn shown(text: &str, report: &Report) {
    let diagnostic: &dyn Diagnostic = report.as_ref();
    let related = diagnostic.related().into_iter().flatten();
    for mistake in std::iter::once(diagnostic).chain(related) {
        assert!(!mistake.to_string().is_empty(), "a mistake has words");
        mistake.labels().into_iter().flatten().for_each(|label| inside(text, &label));
    }
    let mut picture = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
    handler.with_width(110).render_report(&mut picture, diagnostic).expect("a mistake can be drawn");
    assert!(!picture.is_empty());
}

fn inside(text: &str, label: &LabeledSpan) {
    let (start, end) = (label.offset(), label.offset() + label.len());
    assert!(end <= text.len(), "a mistake lies behind the end of the text");
    assert!(
        text.is_char_boundary(start) && text.is_char_boundary(end),
        "a mistake begins or ends within a character"
    );
}
