/**
 * The page as somebody uses it who never saw Larder: set up, watched, browsed, restored.
 */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test as step } from 'node:test';

import { AXE, FTP, S3, browser, filesOf, python, scratch, serve } from './service.js';

const PAGE_BYTES_MAX = 150 * 1024;
const WAIT_MS = Number(process.env.LARDER_PAGE_WAIT_MS ?? 120_000);
const PASSWORD = 'correct horse battery staple';
const SHOTS = process.env.LARDER_PAGE_SCREENSHOTS;

let folder;
let service;
let chromium;
let context;
let page;
const faults = [];

let isBroken = false;

/** Makes a step of the story: where one failed, those that follow would only wait for what does not come. */
function test(name, action) {
  step(name, async (t) => {
    assert.equal(isBroken, false, 'a step before this one failed');
    isBroken = true;
    try {
      await action(t);
      isBroken = false;
    } catch (error) {
      await shot('failed', { fullPage: true });
      throw error;
    }
  });
}

before(async () => {
  folder = scratch();
  const photos = join(folder.path, 'photos');
  mkdirSync(join(photos, 'summer'), { recursive: true });
  writeFileSync(join(photos, 'list.txt'), 'Ærø\nBornholm\n');
  writeFileSync(join(photos, 'summer', 'sea <b>&amp;.bin'), Buffer.alloc(300_000, 7));
  service = await serve(folder.path);
  chromium = await browser();
  context = await chromium.newContext({ viewport: { width: 1200, height: 860 }, acceptDownloads: true, timezoneId: 'Europe/Berlin' });
  page = await watched(context);
});

after(async () => {
  await chromium?.close();
  await service?.stop();
  folder?.remove();
});

/** Opens a page of which every fault is noted: an error of a script, or something that the content-security policy stopped. */
async function watched(from) {
  const made = await from.newPage();
  made.setDefaultTimeout(WAIT_MS);
  made.on('pageerror', (error) => faults.push(String(error)));
  made.on('console', (message) => {
    if (/Content Security Policy|Refused to/i.test(message.text())) faults.push(message.text());
  });
  return made;
}

/** Shows a view and waits until it is there. */
async function open(hash, heading) {
  await page.evaluate((to) => {
    location.hash = to;
  }, hash);
  if (heading) await page.getByRole('heading', { level: 1, name: heading }).waitFor();
}

/** Asserts that axe finds no serious fault in what is shown, in the light and in the dark. */
async function sound(name) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    const found = await page.evaluate(`${AXE}; axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations)`);
    const grave = found.filter(({ impact }) => ['serious', 'critical'].includes(impact));
    const said = grave.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('\n')}`);
    assert.deepEqual(said, [], `${name}, ${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: 'light' });
}

/** Finds a field by its label, whether it is needed or not. */
function field(label, from = page) {
  return from.getByLabel(new RegExp(`^${label}( \\(needed\\))?$`));
}

/** Keeps a picture, where these are wanted. */
async function shot(name, options = {}) {
  if (SHOTS) await page.screenshot({ path: join(SHOTS, `${name}.png`), ...options });
}

/** Says yes to a validation: waits for its verdict. */
async function validated() {
  await page.getByRole('button', { name: 'Validate' }).click();
  await page.getByText(/It works\.|A repository would not work there\./).waitFor();
  return page.getByText('It works.').isVisible();
}

test('a wrong token is refused, and the right one leads to the set-up', async () => {
  await page.goto(service.url);
  await page.getByRole('heading', { level: 1, name: 'Log in to Larder' }).waitFor();
  await sound('log-in');
  await field('Token').fill('hello');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByText('This is no token of Larder').waitFor();
  await field('Token').fill(`larder_${'x'.repeat(43)}`);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.locator('.wrong:not(:empty)').waitFor();
  await field('Token').fill(service.token);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { level: 1, name: 'Where should the backups go?' }).waitFor();
});

test('the set-up leads from nothing to a first backup', async () => {
  await field('Name').fill('disk');
  await field('Folder').fill('backup');
  await page.getByText('Write the whole path').waitFor();
  assert.equal(await page.getByRole('button', { name: 'Save', exact: true }).isDisabled(), true);
  await field('Folder').fill(join(folder.path, 'backup'));
  assert.equal(await page.getByText('Write the whole path').count(), 0);
  assert.equal(await validated(), true);
  await shot('set-up');
  await sound('set-up, where');
  await page.getByRole('button', { name: 'Save', exact: true }).click();
  await page.getByRole('heading', { level: 1, name: 'Choose a password' }).waitFor();
  await field('Password of the repository').fill(PASSWORD);
  await field('The same again').fill('another');
  await page.getByText('The two are not the same.').waitFor();
  await sound('set-up, password');
  await field('The same again').fill(PASSWORD);
  await page.getByRole('button', { name: 'Make the repository' }).click();
  await page.getByRole('heading', { level: 1, name: 'What is backed up, and when?' }).waitFor();
  await field('Name of the job').fill('photos');
  await field('A bucket, a database, or a path by hand').fill(join(folder.path, 'photos'));
  await page.getByRole('button', { name: 'Add it' }).click();
  await page.getByRole('checkbox', { name: /^13:00/ }).check();
  await page.getByRole('region', { name: 'Next runs' }).waitFor();
  assert.equal(await page.getByRole('region', { name: 'Next runs' }).locator('tbody tr').count(), 5);
  await shot('job');
  await sound('set-up, what');
  await page.getByRole('button', { name: 'Save and go on' }).click();
  await page.getByRole('heading', { level: 1, name: 'Run it for the first time' }).waitFor();
  await page.getByRole('button', { name: 'Run photos now' }).click();
  await page.getByText('You have a backup.').waitFor();
  await sound('set-up, run');
});

test('a destination with a wrong password is told so at its step, and may be saved anyway', async (t) => {
  const root = join(folder.path, 'ftp');
  mkdirSync(root);
  const ftp = await python(FTP, root);
  if (!ftp) return t.skip('the servers of scripts/servers.sh are not installed');
  try {
    await open('#/new-destination', 'Add a destination');
    await page.getByRole('radio', { name: /^FTP/ }).check();
    await field('Name').fill('space');
    await field('Server').fill('ftp://127.0.0.1');
    await page.getByText('without ftp://').waitFor();
    await field('Server').fill('127.0.0.1');
    await field('Directory').fill('larder');
    await field('User').fill('me');
    await field('Password').fill('wrong');
    await field('Encryption on the way').selectOption('ftp');
    await page.getByText('More settings').click();
    await field('Port').fill(ftp.port);
    assert.equal(await validated(), false);
    await page.getByRole('list', { name: 'Steps' }).getByText('Log in', { exact: false }).first().waitFor();
    await shot('validation-failed');
    await sound('validation that failed');
    assert.equal(await page.getByRole('button', { name: 'Save', exact: true }).isDisabled(), true);
    assert.equal(await page.getByRole('button', { name: 'Save anyway' }).isEnabled(), true);
    await field('Password').fill('right');
    assert.equal(await validated(), true);
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByRole('heading', { level: 1, name: 'space' }).waitFor();
    // Edited, it keeps its password, and can be tried with it.
    await open('#/edit-destination/space', 'Edit space');
    assert.equal(await field('Password').inputValue(), '');
    assert.equal(await validated(), true);
  } finally {
    await ftp.stop();
  }
  return null;
});

test('a bucket is validated, and its secret never comes back', async (t) => {
  const s3 = await python(S3, 'my-backups');
  if (!s3) return t.skip('the servers of scripts/servers.sh are not installed');
  try {
    await open('#/new-destination', 'Add a destination');
    await page.getByRole('radio', { name: /^S3/ }).check();
    await field('Name').fill('cloud');
    await field('Bucket').fill('my-backups');
    await field('URL of the service').fill(`http://127.0.0.1:${s3.port}`);
    await field('Access key').fill('AKIAEXAMPLE');
    await field('Secret key').fill('secret-that-stays');
    assert.equal(await validated(), true);
    await sound('S3 form');
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByRole('heading', { level: 1, name: 'cloud' }).waitFor();
    assert.equal((await page.content()).includes('secret-that-stays'), false);
    await open('#/destinations', 'Destinations');
    await page.getByRole('link', { name: 'disk' }).waitFor();
    await page.getByRole('searchbox', { name: 'Search destinations' }).fill('clou');
    await page.getByRole('link', { name: 'disk' }).waitFor({ state: 'detached' });
    await page.getByRole('link', { name: 'cloud' }).waitFor();
    await shot('destinations');
    await sound('destinations');
  } finally {
    await s3.stop();
  }
  return null;
});

test('a run shows what was new', async () => {
  await open('#/jobs/photos', 'photos');
  await sound('job');
  writeFileSync(join(folder.path, 'photos', 'new.txt'), 'new\n');
  await page.getByRole('button', { name: 'Run now: photos' }).click();
  await page.getByRole('heading', { level: 2, name: 'What was new' }).waitFor();
  await page.getByText(/1 new, \d changed/).first().waitFor();
  await shot('run');
  await sound('run');
  await open('#/runs', 'Runs');
  await page.getByRole('link', { name: 'Backup job photos' }).nth(1).waitFor();
  await sound('runs');
});

test('a snapshot is browsed, searched and compared, and a file of it is downloaded as it was', async () => {
  await open('#/snapshots/disk', 'Snapshots');
  await page.getByRole('link', { name: /^Browse/ }).first().waitFor();
  await shot('snapshots');
  await sound('snapshots');
  await page.getByRole('link', { name: /^Browse/ }).first().click();
  await page.getByRole('link', { name: join(folder.path, 'photos'), exact: true }).click();
  await page.getByRole('link', { name: 'summer/' }).click();
  await page.getByText('sea <b>&amp;.bin', { exact: true }).waitFor();
  await shot('browse');
  await sound('browse');
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: /^Download: sea/ }).click()]);
  const expected = readFileSync(join(folder.path, 'photos', 'summer', 'sea <b>&amp;.bin'));
  assert.ok(readFileSync(await download.path()).equals(expected));
  await page.getByRole('link', { name: 'Search in it' }).click();
  await field('Name').fill('list');
  await page.getByRole('button', { name: 'Search' }).click();
  await page.getByRole('list', { name: 'Found' }).getByText(/list\.txt$/).waitFor();
  await sound('search');
  await open('#/compare/disk', 'Compare two snapshots');
  await page.getByRole('cell', { name: /new\.txt$/ }).waitFor();
  await shot('compare');
  await sound('compare');
  await page.evaluate((path) => {
    location.hash = `#/versions/disk?path=${encodeURIComponent(path)}`;
  }, join(folder.path, 'photos', 'list.txt'));
  await page.getByRole('heading', { level: 1, name: 'Versions of list.txt' }).waitFor();
  await page.getByRole('link', { name: /^Download the version/ }).first().waitFor();
  await sound('versions');
});

test('a restore is tried first, and then brings everything back', async () => {
  const target = join(folder.path, 'out');
  await open('#/restore/disk/latest', 'Restore');
  assert.equal(await page.getByRole('button', { name: 'Restore', exact: true }).isDisabled(), true);
  await field('Into').fill('out');
  await field('Into').fill(target);
  await page.getByRole('button', { name: 'Try it (dry run)' }).click();
  await page.getByRole('heading', { level: 2, name: 'This is what a restore would do' }).waitFor();
  await shot('restore');
  await sound('restore');
  assert.throws(() => filesOf(target), /ENOENT/);
  await page.getByRole('button', { name: 'Restore', exact: true }).click();
  await page.getByText('Ended: success', { exact: true }).waitFor();
  const restored = Object.entries(filesOf(target)).map(([path, text]) => [path.slice(path.indexOf('photos/') + 'photos/'.length), text]);
  assert.deepEqual(Object.fromEntries(restored), filesOf(join(folder.path, 'photos')));
});

test('a token is made, shown once, sees no more than its scope, and is revoked', async () => {
  await open('#/settings', 'Settings');
  await page.getByText('Make a token', { exact: true }).click();
  await field('Name').fill('guest');
  await page.getByRole('button', { name: 'Make it' }).click();
  const token = await page.locator('.token').innerText();
  await sound('token');
  await page.getByRole('button', { name: 'I have it' }).click();
  await shot('settings');
  await sound('settings');
  const guest = await chromium.newContext();
  const other = await watched(guest);
  await other.goto(service.url);
  await field('Token', other).fill(token);
  await other.getByRole('button', { name: 'Log in' }).click();
  await other.getByRole('heading', { level: 1, name: /All is well|needs? you/ }).waitFor();
  assert.equal(await other.getByRole('button', { name: /^Run / }).count(), 0);
  await other.getByRole('link', { name: 'Destinations' }).click();
  await other.getByRole('heading', { level: 1, name: 'Destinations' }).waitFor();
  assert.equal(await other.getByRole('link', { name: 'Add a destination' }).count(), 0);
  await page.getByRole('button', { name: 'Revoke guest' }).click();
  await page.getByRole('button', { name: 'Revoke', exact: true }).click();
  await page.getByRole('button', { name: 'Revoke guest' }).waitFor({ state: 'detached' });
  await other.getByRole('link', { name: 'Runs' }).click();
  await other.getByRole('heading', { level: 1, name: 'Log in to Larder' }).waitFor();
  await guest.close();
});

test('health says that all is well', async () => {
  await open('#/', /All is well/);
  await page.getByText('Deduplication').first().waitFor();
  await shot('health');
  await sound('health');
  await page.emulateMedia({ colorScheme: 'dark' });
  await shot('health-dark');
  await page.emulateMedia({ colorScheme: 'light' });
});

test('a job that fails says why and what to do, and is well again once that is done', async () => {
  const [place, away] = ['backup', 'away'].map((name) => join(folder.path, name));
  const run = async (outcome) => {
    await open('#/jobs/photos', 'photos');
    await page.getByRole('button', { name: 'Run now: photos' }).click();
    await page.getByText(`Ended: ${outcome}`, { exact: true }).waitFor();
  };
  renameSync(place, away);
  await run('failed');
  await open('#/', 'One job needs you');
  await page.getByText('There is no repository at its destination.', { exact: false }).waitFor();
  await shot('health-failing');
  await sound('health of a job that fails');
  renameSync(away, place);
  await run('success');
  await open('#/', 'All is well');
});

test('a job is edited, and its next runs follow', async () => {
  await open('#/edit-job/photos', 'Edit photos');
  await page.getByRole('radio', { name: /^By a cron/ }).check();
  await field('Cron expression').fill('0 25 * * *');
  await page.getByText('“25” is no hour').waitFor();
  await field('Cron expression').fill('30 2 * * *');
  await field('Time zone').fill('Europe/Berlin');
  await page.getByRole('region', { name: 'Next runs' }).getByText(/ 02:30$/).nth(4).waitFor();
  await sound('job form');
  await page.getByRole('button', { name: 'Save', exact: true }).click();
  await page.getByRole('heading', { level: 1, name: 'photos' }).waitFor();
  await page.getByText('every day at 02:30, Europe/Berlin').waitFor();
  assert.equal(await page.getByRole('region', { name: 'Next runs' }).getByText(/ 02:30$/).count(), 5);
});

test('a keyboard gets to the content, and a phone shows all of it', async () => {
  await open('#/jobs', 'Jobs');
  await page.reload();
  await page.getByRole('heading', { level: 1, name: 'Jobs' }).waitFor();
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  await page.setViewportSize({ width: 360, height: 740 });
  for (const [hash, heading] of [['#/', /All is well/], ['#/jobs/photos', 'photos'], ['#/new-destination', 'Add a destination'], ['#/new-job', 'Add a job'], ['#/snapshots/disk', 'Snapshots'], ['#/settings', 'Settings']]) {
    await open(hash, heading);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(wide <= 0, `${hash} is ${wide} pixels too wide`);
  }
  await open('#/', /All is well/);
  await page.getByRole('button', { name: 'Menu' }).click();
  await page.getByRole('link', { name: 'Snapshots' }).waitFor();
  await shot('phone');
  await sound('phone');
  await page.setViewportSize({ width: 1200, height: 860 });
});

/** Makes a user through the page, with a token, and gives that. */
async function user(name) {
  await open('#/users', 'Users');
  await page.getByRole('link', { name: 'Add a user' }).first().click();
  await page.getByRole('heading', { level: 1, name: 'Add a user' }).waitFor();
  await field('Name').fill('No name');
  await page.getByText('A small letter first').waitFor();
  await field('Name').fill(name);
  await page.getByRole('button', { name: 'Add the user' }).click();
  await page.getByText('Choose at least one').waitFor();
  await page.getByRole('checkbox', { name: 'Folders of this machine' }).check();
  await field('Folders, one a line').fill(join(folder.path, name));
  await sound('user');
  await page.getByRole('button', { name: 'Add the user' }).click();
  await page.getByRole('heading', { level: 1, name }).waitFor();
  await page.getByText('Make a token', { exact: true }).click();
  await field('Name').fill(`laptop of ${name}`);
  await field('Scope').selectOption('admin');
  await page.getByRole('button', { name: 'Make it' }).click();
  const token = await page.getByRole('dialog').locator('.token').textContent();
  await page.getByRole('button', { name: 'I have it' }).click();
  return token;
}

test('two users have the same names, and neither sees anything of the other', async () => {
  const names = ['ann', 'bob'];
  for (const name of names) mkdirSync(join(folder.path, name, 'files'), { recursive: true });
  const tokens = [await user('ann'), await user('bob')];
  await shot('user');
  await open('#/users', 'Users');
  await page.getByRole('link', { name: 'ann', exact: true }).waitFor();
  await page.getByRole('link', { name: 'bob', exact: true }).waitFor();
  await sound('users');
  await shot('users');
  const contexts = [await chromium.newContext(), await chromium.newContext()];
  const pages = [];
  for (const [at, name] of names.entries()) {
    const theirs = await watched(contexts[at]);
    pages.push(theirs);
    await theirs.goto(service.url);
    await field('Token', theirs).fill(tokens[at]);
    await theirs.getByRole('button', { name: 'Log in' }).click();
    // Nothing of the administrator's is there: they begin with nothing.
    await theirs.getByRole('heading', { level: 1, name: 'Where should the backups go?' }).waitFor();
    await theirs.getByText(`Logged in as ${name}, `).waitFor();
    assert.equal(await theirs.getByRole('link', { name: 'Users' }).count(), 0);
    await field('Name', theirs).fill('mine');
    await field('Folder', theirs).fill(join(folder.path, name, 'backup'));
    await theirs.getByRole('button', { name: 'Validate' }).click();
    await theirs.getByText('It works.').waitFor();
    await theirs.getByRole('button', { name: 'Save', exact: true }).click();
    await theirs.getByRole('heading', { level: 1, name: 'Choose a password' }).waitFor();
    await field('Password of the repository', theirs).fill(PASSWORD);
    await field('The same again', theirs).fill(PASSWORD);
    await theirs.getByRole('button', { name: 'Make the repository' }).click();
    await theirs.getByRole('heading', { level: 1, name: 'What is backed up, and when?' }).waitFor();
  }
  for (const [at, name] of names.entries()) {
    const [theirs, other] = [pages[at], names[1 - at]];
    for (const hash of ['#/destinations', '#/jobs', '#/runs', '#/settings', '#/']) {
      await theirs.goto(`${service.url}/${hash}`);
      await theirs.reload();
      await theirs.getByRole('heading', { level: 1 }).waitFor();
      await theirs.waitForLoadState('networkidle');
      const text = await theirs.locator('body').innerText();
      for (const none of [join(folder.path, other), `of ${other}`, join(folder.path, 'photos'), join(folder.path, 'backup')]) {
        assert.ok(!text.includes(none), `${hash} shows ${none} to ${name}`);
      }
    }
    await theirs.goto(`${service.url}/#/destinations`);
    await theirs.getByText(join(folder.path, name, 'backup')).waitFor();
    // What is typed by hand is refused.
    await theirs.goto(`${service.url}/#/users`);
    await theirs.getByText('for the administrator of the service alone').waitFor();
  }
  // Nor does the administrator have it.
  await open('#/destinations', 'Destinations');
  await page.getByRole('link', { name: 'disk', exact: true }).waitFor();
  assert.equal(await page.getByRole('link', { name: 'mine', exact: true }).count(), 0);
  await open('#/users/bob', 'bob');
  await page.getByRole('button', { name: 'Remove bob' }).click();
  await page.getByRole('button', { name: 'Remove', exact: true }).click();
  await page.getByRole('heading', { level: 1, name: 'Users' }).waitFor();
  await pages[1].reload();
  await pages[1].getByRole('heading', { level: 1, name: 'Log in to Larder' }).waitFor();
  for (const one of contexts) await one.close();
});

test('the page of the API has every route, and tries one', async () => {
  const described = await (await fetch(`${service.url}/api/v1/openapi.json`)).json();
  const count = Object.values(described.paths).flatMap(Object.keys).length;
  await open('#/settings', 'Settings');
  await page.getByRole('link', { name: 'All its routes' }).click();
  await page.getByRole('heading', { level: 1, name: /^The API of Larder/ }).waitFor();
  const calls = page.locator('details.call');
  assert.equal(await calls.count(), count);
  await page.getByLabel('Search').fill('get /api/v1/jobs list');
  assert.equal(await page.locator('details.call:visible').count(), 1);
  await page.locator('details.call:visible > summary').click();
  await page.getByRole('button', { name: 'Try it: GET /api/v1/jobs' }).click();
  await page.getByText('200 application/json', { exact: true }).waitFor();
  await page.getByLabel('The answer').getByText('"name": "photos"').waitFor();
  await sound('API');
  await shot('api');
  await page.setViewportSize({ width: 360, height: 740 });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert.ok(wide <= 0, `${wide} pixels too wide`);
  await page.setViewportSize({ width: 1200, height: 860 });
  await page.goto(`${service.url}/#/`);
  await page.getByRole('heading', { level: 1, name: /All is well/ }).waitFor();
});

test('every page is small', async () => {
  for (const hash of ['api', '#/', '#/jobs', '#/new-job', '#/new-destination', '#/snapshots/disk', '#/settings', '#/runs']) {
    const fresh = await context.newPage();
    let size = 0;
    fresh.on('response', async (response) => {
      const body = await response.body().catch(() => Buffer.alloc(0));
      size += body.length;
    });
    await fresh.goto(`${service.url}/${hash}`);
    await fresh.getByRole('heading', { level: 1 }).waitFor();
    await fresh.waitForLoadState('networkidle');
    assert.ok(size > 0 && size <= PAGE_BYTES_MAX, `${hash}: ${size} bytes`);
    await fresh.close();
  }
});

test('no script failed, and nothing was stopped by the policy', () => {
  assert.deepEqual(faults, []);
});
