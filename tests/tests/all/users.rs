//! Several users of one service: equal names, nothing of each other's, and nothing beyond what each may use.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::program::{World, run};
use crate::serve::{Answer, Client, Server, encoded, wait_until};

/// Whose file has this in its name, and nobody else's.
const MARK: &str = "of-ann-alone";

/// Makes a user who may use a folder of their own, and gives it with a token.
fn with_user(world: &World, admin: &Client<'_>, name: &str) -> (PathBuf, String) {
    let folder = world.path(name);
    fs::create_dir_all(folder.join("files")).unwrap();
    let user = json!({"name": name, "paths": [folder], "kinds": ["folder"]});
    admin.post("/api/v1/users", &user, 201);
    let token = json!({"name": format!("first of {name}"), "scope": "admin"});
    let made = admin.post(&format!("/api/v1/users/{name}/tokens"), &token, 201);
    (folder, made["token"].as_str().unwrap().to_owned())
}

/// Makes a location, its repository, and a job of the folder `files`, all of these names.
fn with_job(client: &Client<'_>, folder: &std::path::Path, name: &str) {
    let location = json!({"name": name, "url": folder.join(format!("repo-{name}"))});
    client.post("/api/v1/locations", &location, 201);
    let password = json!({"password": format!("secret of {}", folder.display())});
    let path = format!("/api/v1/locations/{name}/repository");
    client.post(&path, &password, 201);
    let settings = json!({"location": name, "sources": [folder.join("files")]});
    client.post(
        "/api/v1/jobs",
        &json!({"name": name, "settings": settings}),
        201,
    );
}

fn client<'a>(server: &'a Server, token: &str) -> Client<'a> {
    Client {
        server,
        token: token.to_owned(),
    }
}

#[test]
fn two_users_with_equal_names_work_beside_each_other() {
    let world = World::bare();
    let server = Server::start(&world, &[]);
    let admin = Client::new(&server);
    let (ann_folder, ann) = with_user(&world, &admin, "ann");
    let (bob_folder, bob) = with_user(&world, &admin, "bob");
    let (ann, bob) = (client(&server, &ann), client(&server, &bob));
    fs::write(ann_folder.join("files/x.txt"), "of ann").unwrap();
    fs::write(bob_folder.join("files/x.txt"), "of bob").unwrap();
    for (client, folder, name) in [(&ann, &ann_folder, "ann"), (&bob, &bob_folder, "bob")] {
        assert_eq!(client.get("/api/v1/service")["user"], name);
        with_job(client, folder, "cellar");
        let ended = client.done("/api/v1/jobs/cellar/run", &json!({}));
        assert_eq!(ended["outcome"], "success", "{ended}");
    }
    let here = "/api/v1/locations/cellar";
    for (client, folder, content) in [(&ann, &ann_folder, "of ann"), (&bob, &bob_folder, "of bob")]
    {
        for (path, total) in [
            ("/api/v1/locations", 1),
            ("/api/v1/jobs", 1),
            ("/api/v1/runs", 1),
            ("/api/v1/tokens", 1),
            (&format!("{here}/snapshots"), 1),
        ] {
            assert_eq!(client.get(path)["total"], total, "{path}");
        }
        let history = client.get("/api/v1/history");
        assert_eq!(history["items"].as_array().unwrap().len(), 1, "{history}");
        let found = client.get(&format!("{here}/find?pattern=*.txt"));
        let found = found["items"].as_array().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0]["path"],
            folder.join("files/x.txt").to_str().unwrap()
        );
        let path = encoded(&folder.join("files/x.txt"));
        let file = client.send(
            "GET",
            &format!("{here}/snapshots/latest/file?path={path}"),
            b"",
        );
        assert_eq!(
            (file.status, file.body.as_slice()),
            (200, content.as_bytes())
        );
        // Their own lines, and no more: what was made, the run and the download.
        let audit = client.get("/api/v1/audit");
        assert_eq!(audit["items"].as_array().unwrap().len(), 5, "{audit}");
        let target = json!({"location": "cellar", "target": folder.join("back")});
        assert_eq!(
            client.done("/api/v1/restores", &target)["outcome"],
            "success"
        );
        assert_eq!(client.get(&format!("{here}/stats"))["snapshots"], 1);
        assert_eq!(client.get("/api/v1/health")["status"], "ok");
    }
    // The administrator has neither, and may have both names, too.
    assert_eq!(admin.get("/api/v1/locations")["total"], 0);
    assert_eq!(admin.get("/api/v1/runs")["total"], 0);
    let metrics = admin.send("GET", "/metrics", b"");
    assert!(!String::from_utf8(metrics.body).unwrap().contains("cellar"));
    let shown = admin.get("/api/v1/users/ann");
    assert_eq!(
        (&shown["locations"], &shown["jobs"]),
        (&json!(1), &json!(1))
    );
    assert!(!shown.to_string().contains("cellar"));
    // The same key of two tokens are two runs.
    let run = |client: &Client<'_>| {
        let bearer = format!("Bearer {}", client.token);
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Idempotency-Key", "once"),
        ];
        let path = "/api/v1/jobs/cellar/run";
        server.request("POST", path, &headers, b"").expect(202)["id"].clone()
    };
    let ids = [run(&ann), run(&bob)].map(|id| id.as_str().unwrap().to_owned());
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ann.ended(&ids[0])["outcome"], "success");
    assert_eq!(bob.ended(&ids[1])["outcome"], "success");
    ann.send("GET", &format!("/api/v1/runs/{}", ids[1]), b"")
        .expect(404);
    // What each has lies apart, closed to others.
    for name in ["ann", "bob"] {
        let folder = world
            .path("home/.local/state/larder/serve/users")
            .join(name);
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        for file in ["larder.toml", "tokens.json", "state/larder/jobs/history.db"] {
            assert!(folder.join(file).is_file(), "{file}");
        }
    }
}

/// A body that a route understands; every route with one has to be named here.
fn body(method: &str, path: &str, name: &str, id: &str, folder: &str) -> Value {
    match (method, path) {
        ("PATCH", "/api/v1/locations/{name}") => json!({"password": null}),
        ("PATCH", "/api/v1/jobs/{name}") => json!({"settings": {"every": 1, "hours": [3]}}),
        ("POST", "/api/v1/locations/{name}/repository")
        | ("PUT", "/api/v1/locations/{name}/password") => {
            json!({"password": "a password"})
        }
        ("POST", "/api/v1/locations/{name}/validate" | "/api/v1/jobs/{name}/run") => json!({}),
        ("POST", "/api/v1/locations/{name}/check" | "/api/v1/locations/{name}/prune") => json!({}),
        ("POST", "/api/v1/locations/{name}/forget") => json!({"snapshots": [id], "dry_run": false}),
        ("POST", "/api/v1/restores") => {
            json!({"location": name, "target": format!("{folder}/out")})
        }
        ("POST", "/api/v1/validate") => json!({"keep_secrets_of": name, "create": true}),
        ("PUT", "/api/v1/portable") => json!({"job": name}),
        ("POST", "/api/v1/jobs") => {
            json!({"name": "fresh", "settings": {"location": name, "sources": [format!("{folder}/files")]}})
        }
        // What is made has nothing to do with what others have.
        ("POST", "/api/v1/locations") => {
            json!({"name": "fresh", "url": format!("{folder}/repo-{name}-x")})
        }
        ("POST", "/api/v1/tokens") => json!({"name": "fresh", "scope": "read-only"}),
        ("POST", "/login") => json!({"token": "larder_x"}),
        ("POST", "/_backup/api/v1/backup") => json!({"password": "x"}),
        ("POST", "/_backup/api/v1/restore") => Value::Null,
        (_, path) if path.starts_with("/api/v1/users") => json!({}),
        _ => panic!(
            "{method} {path} has a body that this test does not know: say one that is understood"
        ),
    }
}

/// What somebody else has, or what nobody has.
struct Named<'a> {
    name: &'a str,
    run: &'a str,
    snapshot: &'a str,
    token: &'a str,
}

/// Asks a route for something by its name.
fn ask(client: &Client<'_>, route: &Value, named: &Named<'_>, folder: &str) -> Answer {
    let text = |key: &str| route[key].as_str().unwrap();
    let (method, path) = (text("method"), text("path"));
    let id = match path {
        path if path.contains("/runs/") => named.run,
        path if path.contains("/tokens/") => named.token,
        _ => named.snapshot,
    };
    let mut asked = path
        .replace("{name}", named.name)
        .replace("{id}", id)
        .replace("{user}", "wombat");
    let queries = route["query"].as_array().unwrap();
    for (at, query) in queries
        .iter()
        .map(|query| query.as_str().unwrap())
        .enumerate()
    {
        let value = match query {
            "job" | "location" | "search" => named.name,
            "from" | "snapshot" => named.snapshot,
            "path" => "%2F",
            "pattern" => "*",
            // They narrow what there is, and have forms of their own.
            _ => continue,
        };
        asked.push_str(if at == 0 || !asked.contains('?') {
            "?"
        } else {
            "&"
        });
        asked.push_str(&format!("{query}={value}"));
    }
    let body = match route["has_body"].as_bool().unwrap() {
        true => body(method, path, named.name, named.snapshot, folder).to_string(),
        false => String::new(),
    };
    client.send(method, &asked, body.as_bytes())
}

/// Gives all routes, as the service describes them.
fn routes(client: &Client<'_>) -> Vec<Value> {
    let document = client.get("/api/v1/openapi.json");
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, route) in methods.as_object().unwrap() {
            let parameters = route["parameters"].as_array().cloned().unwrap_or_default();
            let query = parameters.iter().filter(|one| one["in"] == "query");
            let query: Vec<_> = query.map(|one| one["name"].clone()).collect();
            routes.push(json!({
                "method": method.to_uppercase(), "path": path, "query": query,
                "has_body": route["requestBody"].is_object(),
            }));
        }
    }
    routes
}

#[test]
fn no_route_tells_one_user_of_what_another_has() {
    let world = World::bare();
    let server = Server::start(&world, &[]);
    let admin = Client::new(&server);
    let (ann_folder, ann) = with_user(&world, &admin, "wombat");
    let (bob_folder, bob) = with_user(&world, &admin, "bob");
    let (ann, bob) = (client(&server, &ann), client(&server, &bob));
    fs::write(ann_folder.join("files").join(MARK), MARK).unwrap();
    with_job(&ann, &ann_folder, MARK);
    let ended = ann.done(&format!("/api/v1/jobs/{MARK}/run"), &json!({}));
    assert_eq!(ended["outcome"], "success", "{ended}");
    let here = format!("/api/v1/locations/{MARK}");
    let snapshot = ann.get(&format!("{here}/snapshots/latest"))["id"].clone();
    let token = ann.post(
        "/api/v1/tokens",
        &json!({"name": MARK, "scope": "read-only"}),
        201,
    );
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (run_id, snapshot, token) = (text(&ended["id"]), text(&snapshot), text(&token["id"]));
    let theirs = Named {
        name: MARK,
        run: &run_id,
        snapshot: &snapshot,
        token: &token,
    };
    let nobodys = Named {
        name: "of-nobody-now",
        run: "20200101T000000.000Z-00000000",
        snapshot: "0123456789abcdef0123456789abcdef",
        token: "t00000000",
    };
    let before = [
        "/api/v1/locations",
        "/api/v1/jobs",
        "/api/v1/tokens",
        "/api/v1/runs",
    ]
    .map(|path| ann.get(path));
    // The bare name stands in what answers, as it was asked for.
    let told = |answer: &Answer, named: &Named<'_>| {
        let mut text = String::from_utf8_lossy(&answer.body).into_owned();
        for part in [named.name, named.run, named.snapshot, named.token] {
            text = text.replace(part, "NAMED");
        }
        // What varies by itself: the time of an answer, and fresh ids and tokens.
        text
    };
    let mut seen = 0;
    for route in routes(&bob) {
        let (method, path) = (
            route["method"].as_str().unwrap(),
            route["path"].as_str().unwrap(),
        );
        let what = format!("{method} {path}");
        if matches!(
            path,
            "/logout" | "/login" | "/healthz" | "/api/v1/openapi.json"
        ) {
            continue;
        }
        if path.starts_with("/api/v1/users") {
            ask(&bob, &route, &theirs, bob_folder.to_str().unwrap()).expect(403);
            continue;
        }
        seen += 1;
        let is_named = path.contains('{')
            || matches!(
                path,
                "/api/v1/restores" | "/api/v1/validate" | "/api/v1/portable"
            );
        let answer = ask(&bob, &route, &theirs, bob_folder.to_str().unwrap());
        let other = ask(&bob, &route, &nobodys, bob_folder.to_str().unwrap());
        assert!(answer.status < 500, "{what}: {}", told(&answer, &theirs));
        if is_named || path == "/api/v1/jobs" {
            assert_eq!(
                (answer.status, told(&answer, &theirs)),
                (other.status, told(&other, &nobodys)),
                "{what}"
            );
        }
        let is_answered_with_nothing = match (method, path) {
            // Nothing of such a job was run, and it runs nothing.
            (_, "/api/v1/jobs/{name}/history") => {
                answer.status == 404 || answer.json()["items"] == json!([])
            }
            (_, "/api/v1/jobs/{name}/cancel") => answer.status == 409,
            ("GET", "/api/v1/portable") => answer.status == 200,
            // A new one names no location that there is.
            ("POST", "/api/v1/jobs") => answer.status == 400,
            _ if is_named => answer.status == 404,
            _ => true,
        };
        assert!(
            is_answered_with_nothing,
            "{what}: {} {}",
            answer.status,
            told(&answer, &theirs)
        );
        // What was asked for by name is named back, and nothing else of ann's is.
        let asks_by_name = is_named || !route["query"].as_array().unwrap().is_empty();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let text = if asks_by_name || method != "GET" {
            told(&answer, &theirs)
        } else {
            text
        };
        for theirs in [
            MARK,
            "wombat",
            run_id.as_str(),
            snapshot.as_str(),
            token.as_str(),
        ] {
            assert!(!text.contains(theirs), "{what} tells of {theirs}: {text}");
        }
    }
    assert!(seen > 40, "{seen} routes");
    // Nor was anything of hers changed.
    let after = [
        "/api/v1/locations",
        "/api/v1/jobs",
        "/api/v1/tokens",
        "/api/v1/runs",
    ]
    .map(|path| ann.get(path));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before["total"], after["total"], "{after}");
    }
    assert_eq!(ann.get(&format!("{here}/snapshots"))["total"], 1);
}

#[test]
fn a_user_uses_what_is_allowed_and_nothing_beside_it() {
    let world = World::bare();
    let root = world.path("srv");
    fs::create_dir(&root).unwrap();
    let server = Server::start(&world, &["--allow-path", root.to_str().unwrap()]);
    let admin = Client::new(&server);
    // Not more than the service may, nor what the service keeps.
    let add = |user: &Value| admin.send("POST", "/api/v1/users", user.to_string().as_bytes());
    let wide = json!({"name": "ann", "paths": ["/"], "kinds": ["folder"]});
    assert!([400, 403].contains(&add(&wide).status));
    let outside = json!({"name": "ann", "paths": [world.path("elsewhere")], "kinds": ["folder"]});
    add(&outside).expect(403);
    add(
        &json!({"name": "ann", "paths": [root.join("ann")], "kinds": ["folder"], "commands": true}),
    )
    .expect(403);
    for name in ["ann", "bob"] {
        fs::create_dir_all(root.join(name).join("files")).unwrap();
    }
    let own = root.join("ann");
    add(&json!({"name": "ann", "paths": [&own], "kinds": ["folder", "s3"]})).expect(201);
    let token = json!({"name": "x", "scope": "admin"});
    let token = admin.post("/api/v1/users/ann/tokens", &token, 201)["token"].clone();
    let ann = client(&server, token.as_str().unwrap());
    fs::write(own.join("files/a"), "a").unwrap();
    symlink(root.join("bob"), own.join("way")).unwrap();
    with_job(&ann, &own, "cellar");

    let refused = |method: &str, path: &str, body: &Value, status: u16| {
        let answer = ann.send(method, path, body.to_string().as_bytes());
        let (found, text) = (
            answer.status,
            String::from_utf8_lossy(&answer.body).into_owned(),
        );
        assert_eq!(found, status, "{body}: {text}");
    };
    let at = |path: &str| root.join(path).to_str().unwrap().to_owned();
    // Where repositories may be.
    for (url, status) in [
        (at("bob/repo"), 403),
        (at("ann/way/repo"), 403),
        (at("ann/../bob/repo"), 400),
        ("repo".to_owned(), 400),
        (format!("file://{}", at("bob/repo")), 403),
        ("sftp://me@127.0.0.1/x".to_owned(), 403),
        ("bundle:/etc/passwd".to_owned(), 403),
    ] {
        refused(
            "POST",
            "/api/v1/locations",
            &json!({"name": "x", "url": url}),
            status,
        );
        refused(
            "POST",
            "/api/v1/validate",
            &json!({"name": "x", "url": url}),
            status,
        );
    }
    // With which credentials, and through whom.
    let s3 = |settings: &Value, secrets: &Value| json!({"name": "x", "url": "s3://bucket/x", "settings": settings, "secrets": secrets});
    refused(
        "POST",
        "/api/v1/locations",
        &s3(&json!({}), &json!({})),
        400,
    );
    let whole = json!({"secret-access-key": "secret of ann"});
    for (key, value) in [
        ("secret-access-key-file", "/etc/hostname"),
        ("secret-access-key-command", "id"),
        ("profile", "default"),
        ("web-identity-token-file", "/etc/hostname"),
        ("ca-certificate", "/etc/hostname"),
        ("endpoint", "http://169.254.169.254/"),
        ("metadata-endpoint", "http://127.0.0.1:1"),
    ] {
        let settings = json!({"access-key-id": "A", key: value});
        refused("POST", "/api/v1/locations", &s3(&settings, &whole), 403);
    }
    ann.post(
        "/api/v1/locations",
        &s3(&json!({"access-key-id": "A"}), &whole),
        201,
    );
    refused(
        "PATCH",
        "/api/v1/locations/x",
        &json!({"unset": ["access-key-id"]}),
        400,
    );
    let toml = world.path("home/.local/state/larder/serve/users/ann/larder.toml");
    let text = fs::read_to_string(&toml).unwrap();
    assert!(
        text.contains("secret-access-key = { sealed =") && !text.contains("secret of ann"),
        "{text}"
    );
    assert!(!ann.get("/api/v1/locations/x").to_string().contains("v1."));
    // What is backed up, and with what.
    for (settings, status) in [
        (json!({"sources": [at("bob/files")]}), 403),
        (json!({"sources": [at("ann/way")]}), 403),
        (json!({"sources": [at("ann/way/files")]}), 403),
        (json!({"sources": ["/etc"]}), 403),
        (json!({"sources": ["passwords"]}), 400),
        (json!({"sources": ["cellar"]}), 400),
        (json!({"sources": ["s3://bucket/x"]}), 403),
        (json!({"sources": ["postgres:///shop"]}), 403),
        (json!({"location": at("ann/other")}), 400),
        (json!({"location": "runs"}), 400),
        (json!({"before": ["id"]}), 403),
        (json!({"password-command": "id"}), 403),
        (json!({"password-file": "/etc/hostname"}), 403),
        (json!({"exclude-file": ["/etc/hostname"]}), 403),
        (json!({"webhook": "http://169.254.169.254/"}), 403),
    ] {
        refused(
            "PATCH",
            "/api/v1/jobs/cellar",
            &json!({"settings": settings}),
            status,
        );
    }
    // Where is restored to.
    let done = ann.done("/api/v1/jobs/cellar/run", &json!({}));
    assert_eq!(done["outcome"], "success", "{done}");
    for (target, status) in [
        (at("bob"), 403),
        (at("ann/way/x"), 403),
        ("/etc".to_owned(), 403),
        ("s3://bucket/x".to_owned(), 403),
        ("postgres://127.0.0.1/x".to_owned(), 403),
    ] {
        refused(
            "POST",
            "/api/v1/restores",
            &json!({"location": "cellar", "target": target}),
            status,
        );
    }
    for path in ["/", "/srv", &at(""), &at("bob"), &at("ann/way")] {
        let answer = ann.send("GET", &format!("/api/v1/paths?path={path}"), b"");
        assert_eq!(answer.status, 403, "{path}");
    }
    assert_eq!(
        ann.get(&format!("/api/v1/paths?path={}", at("ann/files")))["total"],
        1
    );

    // A link that is turned round afterwards leads nowhere, by hand or by schedule.
    let link = own.join("link");
    symlink(own.join("files"), &link).unwrap();
    let settings = json!({"settings": {"sources": [&link]}});
    ann.send(
        "PATCH",
        "/api/v1/jobs/cellar",
        settings.to_string().as_bytes(),
    )
    .expect(200);
    fs::remove_file(&link).unwrap();
    symlink(root.join("bob/files"), &link).unwrap();
    refused("POST", "/api/v1/jobs/cellar/run", &json!({}), 403);
    let settings = json!({"settings": {"sources": [own.join("files")]}});
    ann.send(
        "PATCH",
        "/api/v1/jobs/cellar",
        settings.to_string().as_bytes(),
    )
    .expect(200);
    // What is not allowed any more is not run any more, whoever took it away.
    world.ok(["serve", "user", "edit", "ann", "--kind", "s3"]);
    refused("POST", "/api/v1/jobs/cellar/run", &json!({}), 403);
    ann.send("GET", "/api/v1/locations/cellar/snapshots", b"")
        .expect(403);
    world.ok(["serve", "user", "edit", "ann", "--kind", "folder"]);
    assert_eq!(ann.get("/api/v1/locations/cellar/snapshots")["total"], 1);
}

#[test]
fn what_is_run_for_a_user_finds_nothing_of_the_services_environment() {
    let mut world = World::bare();
    world.environment.push((
        "AWS_SECRET_ACCESS_KEY".to_owned(),
        "of the machine".to_owned(),
    ));
    let server = Server::start(&world, &["--allow-commands"]);
    let admin = Client::new(&server);
    let (folder, token) = with_user(&world, &admin, "ann");
    let ann = client(&server, &token);
    with_job(&ann, &folder, "cellar");
    let told = folder.join("told");
    let hook = json!({"settings": {"before": [format!("env > {}", told.display())]}});
    let hook = hook.to_string();
    let set = || ann.send("PATCH", "/api/v1/jobs/cellar", hook.as_bytes());
    set().expect(403);
    let allow = json!({"commands": true}).to_string();
    admin
        .send("PATCH", "/api/v1/users/ann", allow.as_bytes())
        .expect(200);
    set().expect(200);
    let done = ann.done("/api/v1/jobs/cellar/run", &json!({}));
    assert_eq!(done["outcome"], "success", "{done}");
    let text = fs::read_to_string(told).unwrap();
    for none in ["of the machine", "LARDER_KEY_FILE", "LARDER_REPO="] {
        assert!(!text.contains(none), "{none} in {text}");
    }
    let home = world.path("home/.local/state/larder/serve/users/ann/home");
    assert!(
        text.contains(&format!("HOME={}\n", home.display())),
        "{text}"
    );
}

#[test]
fn users_and_tokens_are_kept_by_the_command_line_as_well() {
    let world = World::bare();
    fs::create_dir(world.path("ann")).unwrap();
    let path = world.path("ann");
    let path = path.to_str().unwrap();
    // Before the service was ever started.
    let user = world.json([
        "serve",
        "user",
        "add",
        "ann",
        "--path",
        path,
        "--kind",
        "folder",
        "--max-jobs",
        "2",
    ]);
    assert_eq!(
        (&user["name"], &user["jobs_max"]),
        (&json!("ann"), &json!(2))
    );
    world
        .run(["serve", "user", "add", "ann", "--kind", "s3"])
        .expect(1)
        .says("already");
    world
        .run(["serve", "user", "add", "bob"])
        .expect(1)
        .says("at least one kind");
    world
        .run(["serve", "user", "add", "bob", "--kind", "tape"])
        .expect(1)
        .says("folder, s3");
    let home = world.path("home");
    let home = home.to_str().unwrap();
    world
        .run([
            "serve", "user", "add", "bob", "--kind", "s3", "--path", home,
        ])
        .expect(1)
        .says("reaches");
    world
        .run(["serve", "token", "add", "x", "--user", "bob"])
        .expect(1)
        .says("no user bob");
    let token = world.json([
        "serve", "token", "add", "phone", "--user", "ann", "--scope", "operate",
    ]);
    assert_eq!(token["scope"], "operate");

    let server = Server::start(&world, &[]);
    let ann = client(&server, token["token"].as_str().unwrap());
    assert_eq!(ann.get("/session")["user"], "ann");
    ann.send("POST", "/api/v1/locations", b"{}").expect(403);
    // And while it is run: who is added gets in at once, and who is revoked does not.
    world.ok(["serve", "user", "add", "bob", "--kind", "s3"]);
    let text = world.ok(["serve", "token", "add", "first", "--user", "bob"]);
    let bob = client(&server, text.trim());
    assert_eq!(bob.get("/session")["user"], "bob");
    let id = token["id"].as_str().unwrap();
    assert_eq!(
        world.json(["serve", "token", "list", "--user", "ann"])[0]["id"],
        id
    );
    world.ok(["serve", "token", "revoke", id, "--user", "ann"]);
    ann.send("GET", "/session", b"").expect(401);
    let admin = Client::new(&server);
    assert_eq!(admin.get("/api/v1/users")["total"], 2);
    world.ok([
        "serve",
        "user",
        "edit",
        "ann",
        "--unset",
        "max-jobs",
        "--max-runs",
        "1",
    ]);
    let ann = admin.get("/api/v1/users/ann");
    assert_eq!(
        (&ann["jobs_max"], &ann["runs_max"]),
        (&Value::Null, &json!(1))
    );
    let removed = world.json(["serve", "user", "remove", "bob"]);
    assert!(
        fs::metadata(removed["kept_in"].as_str().unwrap())
            .unwrap()
            .is_dir()
    );
    bob.send("GET", "/session", b"").expect(401);
    assert_eq!(
        world
            .json(["serve", "user", "list"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// Lets what a job of a user backs up wait for a file, and tells where.
fn waiting(folder: &std::path::Path) -> (Value, PathBuf, PathBuf) {
    let (waits, go) = (folder.join("waits"), folder.join("go"));
    let script = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.05; done; echo done",
        waits.display(),
        go.display()
    );
    (
        json!({"settings": {"commands": [{"name": "wait.txt", "command": script}]}}),
        waits,
        go,
    )
}

#[test]
fn a_service_that_is_killed_in_the_middle_finds_the_runs_of_each_user_again() {
    let world = World::bare();
    let server = Server::start(&world, &["--allow-commands"]);
    let admin_token = server.token();
    let admin = Client::new(&server);
    let mut users = Vec::new();
    for name in ["ann", "bob"] {
        let (folder, token) = with_user(&world, &admin, name);
        let change = json!({"commands": true}).to_string();
        admin
            .send("PATCH", &format!("/api/v1/users/{name}"), change.as_bytes())
            .expect(200);
        let user = client(&server, &token);
        with_job(&user, &folder, "nightly");
        let (change, waits, go) = waiting(&folder);
        user.send(
            "PATCH",
            "/api/v1/jobs/nightly",
            change.to_string().as_bytes(),
        )
        .expect(200);
        let run = user.post("/api/v1/jobs/nightly/run", &json!({}), 202);
        wait_until("waits", || waits.exists());
        users.push((name, token, run["id"].as_str().unwrap().to_owned(), go));
    }
    // Who has a run is not removed.
    let refused = admin.send("DELETE", "/api/v1/users/ann", b"").expect(409);
    assert!(
        refused["detail"].as_str().unwrap().contains("ann"),
        "{refused}"
    );
    server.kill();
    world
        .run(["serve", "user", "remove", "ann"])
        .expect(1)
        .says("cancel, or wait");

    let server = Server::start(&world, &["--allow-commands"]);
    for (at, (_, token, id, go)) in users.iter().enumerate() {
        let user = client(&server, token);
        assert!(user.get(&format!("/api/v1/runs/{id}"))["outcome"].is_null());
        user.post("/api/v1/jobs/nightly/run", &json!({}), 409);
        let other = &users[1 - at];
        user.send("GET", &format!("/api/v1/runs/{}", other.2), b"")
            .expect(404);
        user.send("POST", &format!("/api/v1/runs/{}/cancel", other.2), b"")
            .expect(404);
        fs::write(go, "").unwrap();
        let ended = user.ended(id);
        assert_eq!(ended["outcome"], "success", "{ended}");
        let history = user.get("/api/v1/jobs/nightly/history");
        assert_eq!(history["items"].as_array().unwrap().len(), 1, "{history}");
        assert_eq!(user.get("/api/v1/runs?kind=job")["total"], 1);
        assert_eq!(user.get("/api/v1/locations/nightly/snapshots")["total"], 1);
    }
    // Without a run they go; what they stored stays, and so does what opens it.
    let admin = client(&server, &admin_token);
    let removed = admin.send("DELETE", "/api/v1/users/ann", b"").expect(200);
    let kept = PathBuf::from(removed["kept_in"].as_str().unwrap());
    client(&server, &users[0].1)
        .send("GET", "/session", b"")
        .expect(401);
    let mut command = world.bare_command();
    command
        .args([
            "-r",
            world.path("ann/repo-nightly").to_str().unwrap(),
            "--password-file",
        ])
        .arg(kept.join("passwords/nightly.password"))
        .args(["--json", "snapshots"]);
    let snapshots: Value = serde_json::from_str(&run(&mut command).expect(0).stdout).unwrap();
    assert_eq!(snapshots.as_array().unwrap().len(), 1);
    // Whoever is called so afterwards begins with nothing.
    let (_, token) = with_user(&world, &admin, "ann");
    let ann = client(&server, &token);
    assert_eq!(ann.get("/api/v1/locations")["total"], 0);
    assert_eq!(ann.get("/api/v1/runs")["total"], 0);
    assert_eq!(client(&server, &users[1].1).get("/api/v1/runs")["total"], 1);
}

#[test]
fn what_a_service_without_users_left_goes_on_as_the_administrators() {
    // As it was written before there were users.
    let world = World::bare();
    let data = world.path("data");
    fs::create_dir_all(data.join("runs")).unwrap();
    fs::create_dir(data.join("passwords")).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let token = format!("larder_{}", "A".repeat(43));
    let tokens = json!([{
        "id": "t01020304", "name": "first", "scope": "admin", "created": "2026-11-20T00:00:00Z", "expires": null,
        "hash": blake3::hash(token.as_bytes()).to_hex().to_string(),
    }]);
    fs::write(data.join("tokens.json"), tokens.to_string()).unwrap();
    let id = "20261120T030000.123Z-9f3a21c4";
    let record = json!({
        "id": id, "kind": "job", "job": "nightly", "location": "cellar", "trigger": "schedule", "by": "schedule",
        "dry_run": false, "started": "2026-11-20T03:00:00Z", "ended": "2026-11-20T03:00:01Z", "outcome": "success",
        "exit_code": 0, "error": null, "summary": null, "process": null, "key": null,
    });
    fs::write(
        data.join("runs").join(format!("{id}.json")),
        record.to_string(),
    )
    .unwrap();
    let audited = json!({"time": "2026-11-20T00:00:01Z", "by": "first", "token": "t01020304", "address": "127.0.0.1",
        "method": "POST", "path": "/api/v1/jobs", "status": 201});
    fs::write(data.join("audit.jsonl"), format!("{audited}\n")).unwrap();
    fs::write(data.join("passwords/cellar.password"), "of the cellar").unwrap();
    let toml = world.path("home/.config/larder/larder.toml");
    fs::create_dir_all(toml.parent().unwrap()).unwrap();
    fs::write(
        &toml,
        format!(
            "[locations.cellar]\nurl = '{}'\n",
            world.path("there").display()
        ),
    )
    .unwrap();
    let mut init = world.bare_command();
    run(init
        .args(["-r", "cellar", "init"])
        .env("LARDER_PASSWORD", "of the cellar"))
    .expect(0);

    let server = Server::start(&world, &["--data", data.to_str().unwrap()]);
    assert!(server.said["token"].is_null(), "{}", server.said);
    let admin = client(&server, &token);
    assert_eq!(admin.get("/session")["user"], Value::Null);
    assert_eq!(
        admin.get(&format!("/api/v1/runs/{id}"))["outcome"],
        "success"
    );
    assert_eq!(admin.get("/api/v1/runs")["total"], 1);
    assert_eq!(
        admin.get("/api/v1/audit")["items"][0]["path"],
        "/api/v1/jobs"
    );
    assert_eq!(admin.get("/api/v1/locations/cellar")["has_password"], true);
    assert_eq!(admin.get("/api/v1/locations/cellar/snapshots")["total"], 0);
    assert_eq!(admin.get("/api/v1/users")["total"], 0);
    let (_, ann) = with_user(&world, &admin, "ann");
    assert_eq!(client(&server, &ann).get("/api/v1/runs")["total"], 0);
}

#[test]
fn a_quota_is_said_before_anything_begins() {
    let world = World::bare();
    let server = Server::start(&world, &["--allow-commands"]);
    let admin = Client::new(&server);
    let (folder, token) = with_user(&world, &admin, "ann");
    let limit = |limits: &Value| {
        let limits = limits.to_string();
        let answer = admin.send("PATCH", "/api/v1/users/ann", limits.as_bytes());
        answer.expect(200)
    };
    limit(
        &json!({"locations_max": 1, "jobs_max": 1, "runs_max": 1, "bytes_max": 1, "commands": true}),
    );
    let ann = client(&server, &token);
    fs::write(folder.join("files/a"), "a").unwrap();
    with_job(&ann, &folder, "cellar");
    let refused = |path: &str, body: &Value, status: u16| {
        let answer = ann.post(path, body, status);
        answer["detail"].as_str().unwrap().to_owned()
    };
    let second = json!({"name": "second", "url": folder.join("repo-2")});
    assert!(refused("/api/v1/locations", &second, 403).contains("may have 1"));
    let settings = json!({"location": "cellar", "sources": [folder.join("files")]});
    let job = json!({"name": "second", "settings": settings});
    assert!(refused("/api/v1/jobs", &job, 403).contains("may have 1"));
    // An empty repository is more than a byte.
    let told = refused("/api/v1/jobs/cellar/run", &json!({}), 403);
    assert!(
        told.contains("may have 1;") && told.contains("prune"),
        "{told}"
    );
    assert_eq!(ann.get("/api/v1/runs")["total"], 0);
    // What frees space, and what brings files back, goes on.
    let check = ann.done("/api/v1/locations/cellar/check", &json!({}));
    assert_eq!(check["outcome"], "success", "{check}");
    limit(&json!({"bytes_max": 1 << 30}));
    assert_eq!(
        ann.done("/api/v1/jobs/cellar/run", &json!({}))["outcome"],
        "success"
    );
    assert!(admin.get("/api/v1/users/ann")["bytes"].as_u64().unwrap() > 1);

    let (change, waits, go) = waiting(&folder);
    ann.send(
        "PATCH",
        "/api/v1/jobs/cellar",
        change.to_string().as_bytes(),
    )
    .expect(200);
    let run = ann.post("/api/v1/jobs/cellar/run", &json!({}), 202);
    wait_until("waits", || waits.exists());
    let told = refused("/api/v1/locations/cellar/validate", &json!({}), 409);
    assert!(told.contains("at a time (1)"), "{told}");
    fs::write(&go, "").unwrap();
    let ended = ann.ended(run["id"].as_str().unwrap());
    assert_eq!(ended["outcome"], "success", "{ended}");
    let tried = ann.done("/api/v1/locations/cellar/validate", &json!({}));
    assert_eq!(tried["outcome"], "success");
    // Taken away, nothing of it counts.
    let user = limit(&json!({"locations_max": null, "jobs_max": null, "bytes_max": null}));
    assert_eq!(user["jobs_max"], Value::Null);
    ann.post("/api/v1/locations", &second, 201);
    ann.post("/api/v1/jobs", &job, 201);
}
