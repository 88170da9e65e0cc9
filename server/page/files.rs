//! The files of the web page: path, content type, bytes.

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// All of them.
#[rustfmt::skip]
pub const FILES: &[(&str, &str, &[u8])] = &[
    ("/", HTML, include_bytes!("index.html")),
    ("/favicon.svg", SVG, include_bytes!("favicon.svg")),
    ("/page.css", CSS, include_bytes!("page.css")),
    ("/page.js", SCRIPT, include_bytes!("page.js")),
    ("/lib/api.js", SCRIPT, include_bytes!("lib/api.js")),
    ("/lib/chart.js", SCRIPT, include_bytes!("lib/chart.js")),
    ("/lib/check.js", SCRIPT, include_bytes!("lib/check.js")),
    ("/lib/dom.js", SCRIPT, include_bytes!("lib/dom.js")),
    ("/lib/format.js", SCRIPT, include_bytes!("lib/format.js")),
    ("/lib/health.js", SCRIPT, include_bytes!("lib/health.js")),
    ("/lib/jobs.js", SCRIPT, include_bytes!("lib/jobs.js")),
    ("/lib/kinds.js", SCRIPT, include_bytes!("lib/kinds.js")),
    ("/lib/paths.js", SCRIPT, include_bytes!("lib/paths.js")),
    ("/lib/progress.js", SCRIPT, include_bytes!("lib/progress.js")),
    ("/lib/retention.js", SCRIPT, include_bytes!("lib/retention.js")),
    ("/lib/route.js", SCRIPT, include_bytes!("lib/route.js")),
    ("/lib/runs.js", SCRIPT, include_bytes!("lib/runs.js")),
    ("/lib/schedule.js", SCRIPT, include_bytes!("lib/schedule.js")),
    ("/parts/charts.js", SCRIPT, include_bytes!("parts/charts.js")),
    ("/parts/destination-form.js", SCRIPT, include_bytes!("parts/destination-form.js")),
    ("/parts/filter.js", SCRIPT, include_bytes!("parts/filter.js")),
    ("/parts/form.js", SCRIPT, include_bytes!("parts/form.js")),
    ("/parts/job-form.js", SCRIPT, include_bytes!("parts/job-form.js")),
    ("/parts/live.js", SCRIPT, include_bytes!("parts/live.js")),
    ("/parts/marks.js", SCRIPT, include_bytes!("parts/marks.js")),
    ("/parts/page.js", SCRIPT, include_bytes!("parts/page.js")),
    ("/parts/tree.js", SCRIPT, include_bytes!("parts/tree.js")),
    ("/parts/validation.js", SCRIPT, include_bytes!("parts/validation.js")),
    ("/views/browse.js", SCRIPT, include_bytes!("views/browse.js")),
    ("/views/compare.js", SCRIPT, include_bytes!("views/compare.js")),
    ("/views/destination-form.js", SCRIPT, include_bytes!("views/destination-form.js")),
    ("/views/destination.js", SCRIPT, include_bytes!("views/destination.js")),
    ("/views/destinations.js", SCRIPT, include_bytes!("views/destinations.js")),
    ("/views/health.js", SCRIPT, include_bytes!("views/health.js")),
    ("/views/job-form.js", SCRIPT, include_bytes!("views/job-form.js")),
    ("/views/job.js", SCRIPT, include_bytes!("views/job.js")),
    ("/views/jobs.js", SCRIPT, include_bytes!("views/jobs.js")),
    ("/views/log-in.js", SCRIPT, include_bytes!("views/log-in.js")),
    ("/views/restore.js", SCRIPT, include_bytes!("views/restore.js")),
    ("/views/run.js", SCRIPT, include_bytes!("views/run.js")),
    ("/views/runs.js", SCRIPT, include_bytes!("views/runs.js")),
    ("/views/search.js", SCRIPT, include_bytes!("views/search.js")),
    ("/views/settings.js", SCRIPT, include_bytes!("views/settings.js")),
    ("/views/setup.js", SCRIPT, include_bytes!("views/setup.js")),
    ("/views/snapshots.js", SCRIPT, include_bytes!("views/snapshots.js")),
    ("/views/versions.js", SCRIPT, include_bytes!("views/versions.js")),
];
