/**
 * Where the marks of a chart stand. Pure: numbers in, numbers and paths out.
 */

/**
 * Gives up to `count` round steps between 0 and a size that is reached, by powers of 1024.
 */
export function byteTicks(max, count = 4) {
  if (!(max > 0)) return [0];
  const unit = 1024 ** Math.max(0, Math.floor(Math.log(max) / Math.log(1024)));
  const rough = max / unit / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const nice = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  const step = (nice ?? rough) * unit;
  const ticks = [];
  for (let tick = 0; tick < max + step; tick += step) ticks.push(tick);
  return ticks;
}

/**
 * Places points over time in a box; the last tick is its top.
 *
 * @param {Array<{time: string, value: number}>} points the oldest first
 * @param {{left: number, top: number, width: number, height: number}} box
 * @param {number} top the value that stands at the top
 */
export function placed(points, box, top) {
  const times = points.map(({ time }) => Date.parse(time));
  const first = times[0] ?? 0;
  const span = (times.at(-1) ?? 0) - first;
  return points.map(({ value }, index) => ({
    x: round(box.left + (span === 0 ? box.width : ((times[index] - first) / span) * box.width)),
    y: round(box.top + box.height - (top > 0 ? (value / top) * box.height : 0)),
  }));
}

/** Gives the path of a line that steps up at each point. */
export function stepPath(points, left) {
  if (points.length === 0) return '';
  const [first, ...rest] = points;
  return [`M${left} ${first.y}H${first.x}`, ...rest.map(({ x, y }) => `H${x}V${y}`)].join('');
}

/** Gives the path of the area below such a line. */
export function areaPath(points, box) {
  if (points.length === 0) return '';
  return `${stepPath(points, box.left)}V${box.top + box.height}H${box.left}Z`;
}

/**
 * Counts moments in equal spans from the first to the last one.
 *
 * @param {number[]} times in milliseconds, in any order
 * @returns {Array<{from: number, to: number, count: number}>}
 */
export function spans(times, number) {
  if (times.length === 0) return [];
  const first = Math.min(...times);
  const width = Math.max(1, (Math.max(...times) - first) / number);
  const all = Array.from({ length: number }, (_, index) => ({
    from: first + index * width,
    to: first + (index + 1) * width,
    count: 0,
  }));
  for (const time of times) all[Math.min(number - 1, Math.floor((time - first) / width))].count += 1;
  return all;
}

function round(value) {
  return Math.round(value * 10) / 10;
}
