use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wildmatch::WildMatch;

use super::*;
use crate::census::{Reconnect, Sample, Session};
use crate::memory;
use crate::provider::{Capabilities, Content, Inspection, Login, Seen};
use crate::secret::Secret;
use crate::steps::testing::{begun, rotation};
use crate::value::Update;

/// Somebody who is asked nothing in these tests.
struct Unasked;

#[async_trait]
impl Census for Unasked {
    async fn take(&self, _: &Secret, _: Duration) -> Result<Sample> {
        Err(Error::internal("nobody is counted here"))
    }
    async fn end(&self, _: &Secret, _: &[Session]) -> Result<usize> {
        Err(Error::internal("nobody is thrown out here"))
    }
}

#[async_trait]
impl Verifier for Unasked {
    async fn login(&self, _: &Secret) -> Result<Login> {
        Err(Error::internal("nobody logs in here"))
    }
}

#[test]
fn sessions_are_waited_for_where_they_can_be_seen_and_told_apart() {
    let planned = |seen: bool, told_apart: bool| {
        let mut rotation = rotation(&memory::world("x"));
        rotation.around.census = seen.then(|| Box::new(Unasked) as Box<dyn Census>);
        rotation.consumers[0].sessions = told_apart.then(|| Sessions {
            application_name: WildMatch::new("api"),
            addresses: Vec::new(),
            optional: false,
            reconnect: Reconnect::Wait,
        });
        rotation.plan().steps.iter().any(|step| matches!(step.action, Action::VerifySessions { .. }))
    };
    assert!(planned(true, true));
    assert!(!planned(true, false) && !planned(false, true) && !planned(false, false));
}

#[test]
fn copies_that_somebody_waits_for_come_first() {
    let rotation = rotation(&memory::world("x"));
    let copies: Vec<_> = rotation.outline().copies.into_iter().map(|copy| copy.id).collect();
    assert_eq!(copies, [memory::url_copy(), memory::password_copy()]);
}

#[test]
fn other_environments_are_asked_where_there_are_any() {
    let mut rotation = rotation(&memory::world("x"));
    let asked =
        |rotation: &Rotation| rotation.plan().steps.iter().any(|step| step.action == Action::VerifyElsewhere);
    assert!(!asked(&rotation));
    rotation.around.elsewhere.push(("prod".into(), Box::new(Unasked)));
    assert!(asked(&rotation));
}

/// A file of several copies, which is read and written as a whole, with a pause between the two.
#[derive(Clone)]
struct Line(CopyId, Arc<std::sync::Mutex<BTreeMap<CopyId, String>>>);

#[async_trait]
impl Sink for Line {
    fn id(&self) -> &CopyId {
        &self.0
    }
    fn location(&self) -> String {
        self.0.to_string()
    }
    fn whole(&self) -> String {
        "the file".into()
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
    async fn check(&self) -> Result<Inspection> {
        Ok(Inspection { seen: self.inspect().await?, findings: Vec::new(), identity: None })
    }
    async fn inspect(&self) -> Result<Seen> {
        Ok(Seen { content: Content::Unseen, version: None, updated_at: None })
    }
    async fn publish(&self, update: &Update<'_>) -> Result<Outcome> {
        let mut whole = self.1.lock().unwrap().clone();
        let mut waited = false;
        poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        whole.insert(self.0.clone(), update.password.expose().to_owned());
        *self.1.lock().unwrap() = whole;
        Ok(Outcome::changed())
    }
}

/// Side by side they would undo each other.
#[test]
fn copies_of_one_whole_are_written_one_after_the_other() {
    let file = Arc::default();
    let ids = [CopyId::from("line:one"), CopyId::from("line:two")];
    let mut rotation = rotation(&memory::world("x"));
    rotation.copies = ids
        .iter()
        .map(|id| Copy {
            sink: Box::new(Line(id.clone(), Arc::clone(&file))),
            template: Template::parse("{password}").unwrap(),
            retire: false,
        })
        .collect();
    rotation.wholes = Rotation::locks(&rotation.copies);
    let run = begun(rotation.plan());
    rotation.keyring.keep(run.run, Keys::promoted("new", None));
    let [one, two] = ids.each_ref().map(|id| steps::publish::perform(&rotation, id, &run));
    let mut both = pin!(futures::future::join(one, two));
    let mut look = || both.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let result = (0..10).find_map(|_| match look() {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    });
    let (one, two) = result.expect("each waits once, and once for the other");
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(file.lock().unwrap().len(), 2);
}
