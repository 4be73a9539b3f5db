//! `pgrotate runbook ENV`

mod said;
mod script;

use std::sync::Arc;

use pgrotate_core::by_hand::{Instruction, Language, Part};
use pgrotate_core::rotation::{BoundConsumer, Rotation};
use pgrotate_core::{CopyId, Error, FingerprintKey, Kind};
use serde_json::json;

use crate::app::{App, known};
use crate::config::Deps;
use crate::display;
use crate::exit::{Failure, Status};

/// Write the same rotation as a commented bash script, to be done by hand; asks nothing of any system
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environment
    #[arg(value_name = "ENV")]
    environment: String,
    /// The language of the text
    #[arg(long, value_enum, value_name = "LANG", default_value_t = Lang::En)]
    lang: Lang,
}

/// What `--lang` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Lang {
    /// English
    En,
    /// Russian
    Ru,
}

/// Everything to do, in the runbook's order.
struct Sheet<'a> {
    rotation: &'a Rotation,
    language: Language,
    instructions: Vec<Instruction>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environment = known(&config, &args.environment)?;
    // Nothing is read of any copy, so no fingerprint is made and the state folder stays as it is.
    let deps = Deps {
        key: FingerprintKey::new([0; 32]),
        clock: Arc::clone(&app.clock),
        entropy: Arc::clone(&app.entropy),
    };
    let rotation = config.rotation(&environment, deps)?;
    if rotation.twin.is_some() {
        let error = Error::new(Kind::Config, format!("write the runbook of {environment}"))
            .because("its two roles take turns, and the runbook is for one role")
            .hint(format!("what a run does, in order: pgrotate plan {environment}"));
        return Err(error.into());
    }
    let language = match args.lang {
        Lang::En => Language::English,
        Lang::Ru => Language::Russian,
    };
    let sheet = Sheet { rotation: &rotation, language, instructions: instructions(&rotation) };
    match app.json {
        true => display::json(&sheet.as_json()),
        false => display::out(&sheet.as_script()),
    }
    Ok(Status::Done)
}

/// What the providers say, in the runbook's order. Within a step the order is the configuration's, consumers last.
fn instructions(rotation: &Rotation) -> Vec<Instruction> {
    let mut copies: Vec<(CopyId, Vec<Instruction>)> = Vec::new();
    for copy in &rotation.copies {
        copies.push((copy.sink.id().clone(), copy.sink.by_hand(&copy.template)));
    }
    let consumers: Vec<Instruction> =
        rotation.consumers.iter().flat_map(|bound| told(bound, &copies)).collect();
    let mut all = rotation.vault.by_hand();
    all.extend(rotation.authority.by_hand());
    all.extend(copies.into_iter().flat_map(|(_, own)| own));
    all.extend(consumers);
    all.extend(rotation.verifications.iter().flat_map(|own| own.by_hand()));
    all.extend(rotation.recorders.iter().flat_map(|own| own.by_hand()));
    all.sort_by_key(|own| own.part);
    all
}

/// A consumer's instructions, not before the copies that it waits for.
fn told(bound: &BoundConsumer, copies: &[(CopyId, Vec<Instruction>)]) -> Vec<Instruction> {
    let awaited = |id: &CopyId| bound.waits_for.is_empty() || bound.waits_for.contains(id);
    let ready =
        copies.iter().filter(|(id, _)| awaited(id)).flat_map(|(_, own)| own.iter().map(|one| one.part));
    let ready = ready.max().unwrap_or(Part::Applications);
    let mut own = bound.consumer.by_hand();
    own.iter_mut().for_each(|one| one.part = one.part.max(ready));
    own
}

impl Sheet<'_> {
    /// The instructions of a step.
    fn of(&self, part: Part) -> impl Iterator<Item = &Instruction> {
        self.instructions.iter().filter(move |own| own.part == part)
    }

    /// The steps that there are. Those of the server and of the proofs always are.
    fn parts(&self) -> impl Iterator<Item = Part> {
        let always = |part| matches!(part, Part::Before | Part::Server | Part::Validation);
        Part::ALL.into_iter().filter(move |part| always(*part) || self.of(*part).next().is_some())
    }

    fn as_json(&self) -> serde_json::Value {
        let instruction = |own: &Instruction| {
            let prose: Vec<&str> = own.prose.iter().map(|words| words.of(self.language)).collect();
            json!({
                "title": own.title.of(self.language), "prose": prose, "commands": own.commands, "tools": own.tools,
            })
        };
        let steps: Vec<_> = self
            .parts()
            .map(|part| {
                json!({
                    "step": part.number(), "part": part, "title": said::heading(part).of(self.language),
                    "instructions": self.of(part).map(instruction).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({ "environment": self.rotation.environment, "steps": steps, "script": self.as_script() })
    }
}
