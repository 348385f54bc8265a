use super::*;

fn window(days: &[&str], start: &str, end: &str, zone: &str) -> RestartWindow {
    let days: Vec<String> = days.iter().map(|day| (*day).to_owned()).collect();
    RestartWindow::parse(&days, start, end, zone).unwrap().unwrap()
}

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

fn open(until: &str) -> WindowState {
    WindowState::Open { until: Some(at(until)) }
}

fn closed(until: &str) -> WindowState {
    WindowState::Closed { until: Some(at(until)) }
}

#[test]
fn no_fields_restrict_nothing() {
    assert_eq!(RestartWindow::parse(&[], "", "", "").unwrap(), None);
    assert_eq!(RestartWindow::parse(&[], "", "", "Europe/Berlin").unwrap(), None);
    assert_eq!(RestartWindow::parse(&[], "22:00", "22:00", "UTC").unwrap(), None, "the whole of every day");
}

#[test]
fn a_window_of_one_day_opens_and_closes_by_the_local_clock() {
    let window = window(&["Tue"], "09:30", "17:00", "Europe/Berlin");
    // 2026-12-01 is a Tuesday; Berlin is an hour ahead
    assert_eq!(window.state(at("2026-11-30T12:00:00Z")), closed("2026-12-01T08:30:00Z"));
    assert_eq!(window.state(at("2026-12-01T08:29:59Z")), closed("2026-12-01T08:30:00Z"));
    assert_eq!(window.state(at("2026-12-01T08:30:00Z")), open("2026-12-01T16:00:00Z"));
    assert_eq!(window.state(at("2026-12-01T15:59:59Z")), open("2026-12-01T16:00:00Z"));
    assert_eq!(window.state(at("2026-12-01T16:00:00Z")), closed("2026-12-08T08:30:00Z"));
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_starts() {
    let window = window(&["Sat"], "22:00", "04:00", "UTC");
    assert_eq!(window.state(at("2026-12-05T03:00:00Z")), closed("2026-12-05T22:00:00Z"), "Friday's night is not meant");
    assert_eq!(window.state(at("2026-12-05T23:00:00Z")), open("2026-12-06T04:00:00Z"));
    assert_eq!(
        window.state(at("2026-12-06T03:59:59Z")),
        open("2026-12-06T04:00:00Z"),
        "Sunday, still Saturday's night"
    );
    assert_eq!(window.state(at("2026-12-06T22:00:00Z")), closed("2026-12-12T22:00:00Z"), "Sunday's night is not meant");
}

#[test]
fn equal_start_and_end_are_a_whole_day_from_then_on() {
    let window = window(&["Sat", "Sun"], "06:00", "06:00", "UTC");
    assert_eq!(window.state(at("2026-12-05T05:59:59Z")), closed("2026-12-05T06:00:00Z"));
    assert_eq!(window.state(at("2026-12-05T06:00:00Z")), open("2026-12-07T06:00:00Z"), "two days without a gap");
}

#[test]
fn days_without_hours_are_whole_days() {
    let window = window(&["mon", "TUE"], "", "", "");
    assert_eq!(window.state(at("2026-11-29T23:59:59Z")), closed("2026-11-30T00:00:00Z"));
    assert_eq!(window.state(at("2026-11-30T00:00:00Z")), open("2026-12-02T00:00:00Z"));
}

#[test]
fn every_night_reaches_from_evening_to_morning() {
    let window = window(&[], "22:00", "24:00", "UTC");
    assert_eq!(window.state(at("2026-12-01T23:00:00Z")), open("2026-12-02T00:00:00Z"));
    assert_eq!(window.state(at("2026-12-02T00:00:00Z")), closed("2026-12-02T22:00:00Z"));
}

#[test]
fn every_day_of_the_week_by_name_never_closes() {
    let window = window(&["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], "10:00", "10:00", "America/New_York");
    assert_eq!(window.state(at("2026-11-01T05:30:00Z")), WindowState::Open { until: None });
}

#[test]
fn an_hour_that_the_clock_leaves_out_is_not_open() {
    // Berlin, 2027-03-28: 02:00 is followed by 03:00, at 01:00 UTC
    let crossing = window(&["Sun"], "01:30", "03:30", "Europe/Berlin");
    assert_eq!(crossing.state(at("2027-03-28T00:30:00Z")), open("2027-03-28T01:30:00Z"), "one hour, and not two");
    let starts_within = window(&["Sun"], "02:30", "04:00", "Europe/Berlin");
    assert_eq!(starts_within.state(at("2027-03-28T00:59:59Z")), closed("2027-03-28T01:00:00Z"));
    assert_eq!(starts_within.state(at("2027-03-28T01:00:00Z")), open("2027-03-28T02:00:00Z"));
    let ends_within = window(&["Sun"], "01:00", "02:30", "Europe/Berlin");
    assert_eq!(ends_within.state(at("2027-03-28T00:59:59Z")), open("2027-03-28T01:00:00Z"));
    let all_within = window(&["Sun"], "02:10", "02:40", "Europe/Berlin");
    assert_eq!(all_within.state(at("2027-03-27T23:00:00Z")), closed("2027-04-04T00:10:00Z"), "the next Sunday");
}

#[test]
fn an_hour_that_occurs_twice_is_open_twice() {
    // Berlin, 2026-10-25: 03:00 is followed by 02:00, at 01:00 UTC
    let within = window(&["Sun"], "02:10", "02:40", "Europe/Berlin");
    assert_eq!(within.state(at("2026-10-25T00:00:00Z")), closed("2026-10-25T00:10:00Z"));
    assert_eq!(within.state(at("2026-10-25T00:20:00Z")), open("2026-10-25T00:40:00Z"));
    assert_eq!(within.state(at("2026-10-25T00:45:00Z")), closed("2026-10-25T01:10:00Z"));
    assert_eq!(within.state(at("2026-10-25T01:20:00Z")), open("2026-10-25T01:40:00Z"));
    let around = window(&["Sun"], "01:00", "04:00", "Europe/Berlin");
    assert_eq!(around.state(at("2026-10-24T23:30:00Z")), open("2026-10-25T03:00:00Z"), "four hours");
}

#[test]
fn the_state_says_the_moment_at_which_it_changes_first_around_every_change_of_clocks() {
    // checked against the definition, minute by minute, over the changes of a zone with half-hour steps and one with whole hours
    for (zone, from) in [("Australia/Lord_Howe", "2026-10-03T00:00:00Z"), ("America/New_York", "2026-10-31T12:00:00Z")]
    {
        for (start, end) in [("02:00", "02:30"), ("01:45", "02:15"), ("23:30", "02:10"), ("02:15", "02:15")] {
            let window = window(&["Sat", "Sun"], start, end, zone);
            let is_open = |minute: i64| window.is_open(Timestamp::from_second(at(from) + minute * 60).unwrap());
            // backwards, so that the first change after each minute is known
            let minutes = 2 * 24 * 60_i64;
            let mut change = (minutes..).find(|minute| is_open(*minute) != is_open(minutes - 1)).unwrap();
            for minute in (0..minutes).rev() {
                if is_open(minute) != is_open(minute + 1) {
                    change = minute + 1;
                }
                let until = Some(at(from) + change * 60);
                let expected =
                    if is_open(minute) { WindowState::Open { until } } else { WindowState::Closed { until } };
                assert_eq!(window.state(at(from) + minute * 60), expected, "{zone} {start} {end} at minute {minute}");
            }
        }
    }
}

#[test]
fn a_time_that_no_calendar_has_is_closed() {
    assert_eq!(window(&["Sat"], "", "", "").state(i64::MAX), WindowState::Closed { until: None });
    assert_eq!(window(&["Sat"], "", "", "").state(i64::MIN), WindowState::Closed { until: None });
}

#[test]
fn an_error_names_the_field_and_the_expected_form() {
    let error = |days: &[&str], start: &str, end: &str, zone: &str| {
        let days: Vec<String> = days.iter().map(|day| (*day).to_owned()).collect();
        RestartWindow::parse(&days, start, end, zone).unwrap_err()
    };
    assert_eq!(error(&["Sat", "Caturday"], "", "", "").field, "days");
    for start in ["8:00", "08:60", "25:00", "24:01", "0800", "08:00:00", "-1:00", "+1:00", " 8:00"] {
        assert_eq!(error(&[], start, "09:00", "").field, "start", "{start}");
    }
    assert_eq!(error(&[], "08:00", "", "").field, "end");
    assert_eq!(error(&[], "", "08:00", "").field, "start");
    assert_eq!(error(&[], "08:00", "late", "").field, "end");
    let zone = error(&[], "08:00", "09:00", "Europe/Atlantis");
    assert_eq!(
        zone.to_string(),
        "fleet.window.timeZone: expected the name of a time zone, such as Europe/Berlin, and not `Europe/Atlantis`"
    );
    assert_eq!(error(&[], "08:00", "09:00", &"x".repeat(10_000)).field, "timeZone");
}

#[test]
fn the_bundled_zones_are_there() {
    for zone in ["Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe", "Etc/GMT+5", "utc"] {
        assert!(RestartWindow::parse(&[], "01:00", "02:00", zone).is_ok(), "{zone}");
    }
}
