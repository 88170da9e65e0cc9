/**
 * Charts as SVG. Each can be read as a table, too.
 */

import { h, svg } from '../lib/dom.js';
import { bytes, day, moment } from '../lib/format.js';
import { areaPath, byteTicks, placed, spans, stepPath } from '../lib/chart.js';

const ROWS_MAX = 50;

/** Gives the width of drawings in units of which a letter has twelve, so that it can be read on a phone as well. */
function widthNow() {
  return window.matchMedia('(max-width: 40rem)').matches ? 320 : 640;
}

/**
 * Draws how a number of bytes grew.
 *
 * @param {string} title
 * @param {Array<{time: string, value: number}>} points the oldest first
 */
export function areaChart(title, points) {
  if (points.length < 2) return null;
  const width = widthNow();
  const height = 150;
  const box = { left: 64, top: 10, width: width - 76, height: height - 40 };
  const ticks = byteTicks(points.reduce((most, { value }) => Math.max(most, value), 0), 3);
  const top = ticks.at(-1);
  const marks = placed(points, box, top);
  const lines = ticks.map((tick) => {
    const y = box.top + box.height - (top > 0 ? (tick / top) * box.height : 0);
    return [
      svg('line', { class: 'grid-line', x1: box.left, x2: box.left + box.width, y1: y, y2: y }),
      svg('text', { x: box.left - 8, y: y + 4, 'text-anchor': 'end' }, bytes(tick)),
    ];
  });
  const label = `${title}: from ${bytes(points[0].value)} on ${day(points[0].time)} to ${bytes(points.at(-1).value)} on ${day(points.at(-1).time)}`;
  const dots = points.length <= 60 ? marks.map(({ x, y }, index) => svg('circle', { class: 'dot', cx: x, cy: y, r: 3 }, svg('title', {}, `${moment(points[index].time)}: ${bytes(points[index].value)}`))) : [];
  const drawing = svg(
    'svg',
    { class: 'chart', viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label },
    lines,
    svg('path', { class: 'area', d: areaPath(marks, box) }),
    svg('path', { class: 'line', d: stepPath(marks, box.left) }),
    dots,
    svg('text', { x: box.left, y: height - 8 }, day(points[0].time)),
    svg('text', { x: width - 12, y: height - 8, 'text-anchor': 'end' }, day(points.at(-1).time)),
  );
  return h('figure', { class: 'stack' }, h('figcaption', { class: 'label' }, title), drawing, asTable(points));
}

function asTable(points) {
  const last = points.slice(-ROWS_MAX);
  const rows = last.map(({ time, value }) => h('tr', {}, h('td', {}, moment(time)), h('td', { class: 'number' }, bytes(value))));
  return h(
    'details',
    {},
    h('summary', {}, 'As a table'),
    h('table', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Time'), h('th', { scope: 'col', class: 'number' }, 'Size'))), h('tbody', {}, rows)),
  );
}

/** Draws what shares of a whole were verified lately, one bar each. */
export function shareBars(label, bars) {
  const height = bars.length * 26;
  const row = ({ name, share, text }, index) => [
    svg('text', { x: 0, y: index * 26 + 16 }, name),
    svg('rect', { class: 'bar-rest', x: 56, y: index * 26 + 6, width: 100, height: 12, rx: 6 }),
    share > 0 && svg('rect', { class: 'bar', x: 56, y: index * 26 + 6, width: Math.max(3, 100 * share), height: 12, rx: 6 }),
    svg('text', { x: 164, y: index * 26 + 16 }, text),
  ];
  const said = bars.map(({ name, text }) => `${name}: ${text}`).join(', ');
  return svg('svg', { class: 'chart shares', viewBox: `0 0 205 ${height}`, role: 'img', 'aria-label': `${label}: ${said}` }, bars.map(row));
}

/** Draws when there were snapshots, as bars over time; a bar that is pressed leads to its first moment. */
export function timeline(times, chosen) {
  const moments = times.map((time) => Date.parse(time));
  const columns = 64;
  const height = 84;
  const whole = widthNow();
  const all = spans(moments, columns);
  if (all.length === 0) return null;
  const most = Math.max(...all.map(({ count }) => count));
  const width = whole / columns;
  const bar = ({ from, to, count }, index) => {
    if (count === 0) return null;
    const tall = 8 + (count / most) * 46;
    const title = svg('title', {}, `${day(new Date(from).toISOString())}: ${count}`);
    return svg('rect', { class: 'bar', x: index * width + 1, y: 58 - tall, width: width - 2, height: tall, rx: 2, click: () => chosen(from, to) }, title);
  };
  const [oldest, newest] = [all[0].from, Math.max(...moments)].map((time) => day(new Date(time).toISOString()));
  return svg(
    'svg',
    { class: 'chart', viewBox: `0 0 ${whole} ${height}`, role: 'img', 'aria-label': `${times.length} snapshots from ${oldest} to ${newest}` },
    all.map(bar),
    svg('line', { class: 'grid-line', x1: 0, x2: whole, y1: 60, y2: 60 }),
    svg('text', { x: 0, y: 78 }, oldest),
    svg('text', { x: whole, y: 78, 'text-anchor': 'end' }, newest),
  );
}
