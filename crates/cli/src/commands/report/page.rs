//! The page: one file with everything in it, which asks nobody for anything and runs nothing.

use askama::Template;
use pgrotate_core::{Error, Result};

use super::story::{Step, Story};

/// The width of the timeline, in units of its own.
const WIDTH: u64 = 1000;
/// The height of a step in it.
const ROW: usize = 18;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    story: &'a Story,
    bars: Vec<Bar<'a>>,
    window: Option<(u64, u64)>,
    width: u64,
    height: usize,
}

/// A step in the timeline.
struct Bar<'a> {
    step: &'a Step,
    y: usize,
    text_y: usize,
    x: u64,
    width: u64,
    /// Where its name stands, and with which end.
    text_x: u64,
    anchor: &'static str,
}

/// Draws a run.
///
/// # Errors
/// When the template breaks a promise.
pub(super) fn render(story: &Story) -> Result<String> {
    let scale = |millis: u64| (millis * WIDTH).checked_div(story.took_ms).unwrap_or(0).min(WIDTH);
    let begun = story.steps.iter().filter(|step| step.tries > 0);
    let bars: Vec<Bar<'_>> = begun
        .enumerate()
        .map(|(row, step)| {
            let (x, width) = (scale(step.from_ms), scale(step.for_ms).max(2));
            // Beside the bar, on the side where there is room.
            let left = x > WIDTH / 2;
            Bar {
                step,
                y: row * ROW + 3,
                text_y: row * ROW + 14,
                x,
                width,
                text_x: if left { x.saturating_sub(6) } else { x + width + 6 },
                anchor: if left { "end" } else { "start" },
            }
        })
        .collect();
    let window = story.window.map(|(from, to)| (scale(from), scale(to) - scale(from)));
    let height = bars.len() * ROW + 4;
    let page = Page { story, bars, window, width: WIDTH, height };
    page.render().map_err(|_| Error::internal("the page of a report could not be drawn"))
}
