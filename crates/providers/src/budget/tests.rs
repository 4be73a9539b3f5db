//! No stretch of time has more in it than a vendor allows, and nobody waits for longer than that takes.

use futures::future::join_all;
use pgrotate_core::env::testing::ManualClock;
use pgrotate_core::plan::Step;

use super::*;

const EPOCH_S: i64 = 1_700_000_000;

/// The times, in milliseconds since the first, at which so many requests go that all want to at once.
async fn goes(number: usize, one: impl AsyncFn(&Budgets, &ManualClock)) -> Vec<u64> {
    let (budgets, clock) = (Budgets::default(), ManualClock::at_second(EPOCH_S));
    let began = clock.uptime();
    let each = join_all((0..number).map(|_| async {
        one(&budgets, &clock).await;
        u64::try_from((clock.uptime() - began).as_millis()).unwrap()
    }));
    let mut times = each.await;
    times.sort_unstable();
    times
}

/// The most that fall into any stretch of so many milliseconds.
fn most_within(times: &[u64], ms: u64) -> usize {
    let until = |first: usize| times[first..].iter().take_while(|at| **at < times[first] + ms).count();
    (0..times.len()).map(until).max().unwrap_or(0)
}

async fn github(budgets: &Budgets, clock: &ManualClock, effect: Effect) {
    assert!(budgets.github(clock, "api.github.com", effect).await.is_some());
}

#[tokio::test]
async fn githubs_minute_and_its_hour_hold_at_every_moment() {
    let times = goes(1_200, async |budgets, clock| github(budgets, clock, Effect::Writes).await).await;
    assert_eq!((most_within(&times, 60_000), most_within(&times, 3_600_000)), (80, 500));
    // Two hours for the first thousand, seven minutes at most for the rest; no more than a thousandth is given away.
    let last = times.last().unwrap();
    assert!((7_320_000..7_400_000).contains(last), "{last}");
}

#[tokio::test]
async fn a_read_does_not_wait_for_what_only_writes_need() {
    let (budgets, clock) = (Budgets::default(), ManualClock::at_second(EPOCH_S));
    for _ in 0..80 {
        github(&budgets, &clock, Effect::Writes).await;
    }
    let began = clock.uptime();
    github(&budgets, &clock, Effect::Reads).await;
    assert_eq!(clock.uptime(), began);
    let times = goes(2_000, async |budgets, clock| github(budgets, clock, Effect::Reads).await).await;
    assert_eq!(most_within(&times, 60_000), 900);
}

#[tokio::test]
async fn a_bucket_never_overflows_the_vendors() {
    for (effect, holds, a_second) in [(Effect::Reads, 250, 25), (Effect::Writes, 200, 10)] {
        let times = goes(1_000, async |budgets, clock| {
            budgets.resource_manager(clock, "s1", effect).await;
        })
        .await;
        for second in 0..30 {
            let most = most_within(&times, second * 1_000 + 1);
            assert!(most as u64 <= holds + second * a_second, "{most} in {second} s");
        }
        let shortest = (1_000 - holds) * 1_000 / a_second;
        let last = *times.last().unwrap();
        assert!((shortest..shortest + 2_000).contains(&last), "{last} ms, {shortest} would be the shortest");
    }
}

#[tokio::test]
async fn vaults_have_a_limit_each_and_one_together() {
    let times = goes(9_000, async |budgets, clock| budgets.vault(clock, "one").await).await;
    assert_eq!(most_within(&times, 10_000), 4_000);
    let (budgets, clock) = (Budgets::default(), ManualClock::at_second(EPOCH_S));
    let began = clock.uptime();
    for number in 0..20_001 {
        budgets.vault(&clock, &format!("kv-{}", number % 10)).await;
        assert_eq!(clock.uptime() == began, number < 20_000, "{number}");
    }
}

#[tokio::test]
async fn aws_takes_fifty_writes_a_second() {
    let times = goes(300, async |budgets, clock| budgets.aws_write(clock, "eu-west-1").await).await;
    assert_eq!(most_within(&times, 1_000), 50);
}

#[tokio::test]
async fn a_request_draws_on_the_budget_of_its_place() {
    let (budgets, clock) = (Budgets::default(), ManualClock::at_second(EPOCH_S));
    let url = |text: &str| text.parse::<reqwest::Url>().unwrap();
    let began = clock.uptime();
    for _ in 0..190 {
        let of = url("https://management.azure.com/subscriptions/s1/x");
        budgets.azure(&clock, &of, Effect::Writes).await;
    }
    assert_eq!(clock.uptime(), began);
    // Neither another subscription, nor a read, a vault or the sign-in waits for it.
    for other in [
        url("https://management.azure.com/subscriptions/s2/x"),
        url("https://kv-1.vault.azure.net/secrets/a"),
        url("https://login.microsoftonline.com/t/oauth2/v2.0/token"),
    ] {
        budgets.azure(&clock, &other, Effect::Writes).await;
    }
    budgets.azure(&clock, &url("https://management.azure.com/subscriptions/s1/x"), Effect::Reads).await;
    assert_eq!(clock.uptime(), began);
    budgets.azure(&clock, &url("https://management.azure.com/subscriptions/s1/y"), Effect::Writes).await;
    assert!(clock.uptime() > began);
}

#[tokio::test]
async fn keys_that_have_nothing_drawn_are_forgotten() {
    let (budgets, clock) = (Budgets::default(), ManualClock::at_second(EPOCH_S));
    for number in 0..5_000 {
        budgets.resource_manager(&clock, &format!("s{number}"), Effect::Reads).await;
        clock.sleep(Duration::from_secs(1)).await;
    }
    assert!(budgets.0.arm_reads.number_of_keys() <= 128, "{}", budgets.0.arm_reads.number_of_keys());
}

#[tokio::test]
async fn room_for_a_run_is_room_for_all_that_it_makes() {
    let publish = |copy: &str| Step::new(Action::Publish { copy: copy.into() }, Vec::new());
    let issue = Step::new(Action::Record { recorder: "github_issue".into() }, Vec::new());
    let other = Step::new(Action::Record { recorder: "jira".into() }, Vec::new());
    let steps = vec![publish("github_actions:URL"), publish("azure_key_vault:url"), issue, other];
    let world = pgrotate_core::memory::world("x");
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn pgrotate_core::env::Entropy>) = (
        Arc::new(ManualClock::at_second(EPOCH_S)),
        Arc::new(pgrotate_core::env::testing::SeededEntropy::new(1)),
    );
    let plan = Plan { steps, ..pgrotate_core::memory::rotation(&world, &clock, &entropy).plan() };
    let times =
        goes(500, async |budgets, clock| budgets.room_for(clock, "api.github.com", &plan).await).await;
    // Two things for each.
    assert_eq!((most_within(&times, 60_000), most_within(&times, 3_600_000)), (40, 250));
}
