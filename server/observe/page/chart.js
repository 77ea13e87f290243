// Charts as SVG: channels of one layer, and a layer's history.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000;
const HEIGHT = 300;
const LEFT = 64;
const RIGHT = 12;
const TOP = 16;
const BOTTOM = 30;

// An SVG element; children that are strings become text.
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Three significant digits, or "–" for what is not known.
export function digits(value) {
  if (value === null || value === undefined) return "–";
  return String(Number(Number(value).toPrecision(3)));
}

// Steps of 1, 2 or 5 times a power of ten that cut [low, high] into about `wanted`.
export function ticks(low, high, wanted = 5) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high; at++) found.push(at * step);
  return found;
}

// The range of `values`; where a few lie so far out that the others would be one line, that of the others.
function rangeOf(values) {
  const sorted = values.filter((value) => Number.isFinite(value)).sort((a, b) => a - b);
  if (sorted.length === 0) return [0, 1];
  const last = sorted.length - 1;
  const [low, high] = [sorted[Math.round(last * 0.05)], sorted[Math.round(last * 0.95)]];
  const most = high - low;
  if (most > 0 && sorted[last] - sorted[0] > 20 * most) return [low - most / 2, high + most / 2];
  return [sorted[0], sorted[last]];
}

// A frame with a vertical axis over `values`; gives the picture and where a value lies, at the edge if beyond it.
function frame(values, label) {
  let [low, high] = rangeOf(values);
  if (low === high) [low, high] = [low - (Math.abs(low) || 1), high + (Math.abs(high) || 1)];
  const margin = (high - low) * 0.06;
  [low, high] = [low - margin, high + margin];
  const share = (value) => Math.min(Math.max((high - value) / (high - low), 0), 1);
  const y = (value) => TOP + share(value) * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const tick of ticks(low, high)) {
    picture.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }),
                   svg("text", { x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" }, digits(tick)));
  }
  return { picture, y, isBeyond: (value) => value < low || value > high };
}

// Running mean ± std of each channel as a block with a line through it, the newest batch's as a dot with whiskers, and a
// triangle over those that lie more than one deviation apart. `channels` as /api/sessions gives them. The picture, and how
// many channels reach beyond it.
export function channelChart(channels, label) {
  const { channel, running_mean: mean, running_std: std, batch_mean: batchMean, batch_std: batchStd, drift } = channels;
  const known = (value) => value !== null && value !== undefined;
  const ends = (middle, deviation) => middle.flatMap((value, i) =>
    known(value) && known(deviation[i]) ? [value - deviation[i], value + deviation[i]] : []);
  const { picture, y, isBeyond } = frame([...ends(mean, std), ...ends(batchMean, batchStd)], label);
  const slot = (WIDTH - LEFT - RIGHT) / Math.max(channel.length, 1);
  const every = Math.ceil(channel.length / Math.floor((WIDTH - LEFT) / 45));
  channel.forEach((c, i) => {
    const x = LEFT + i * slot;
    const group = svg("g", {}, svg("title", {},
      `channel ${c}: running ${digits(mean[i])} ± ${digits(std[i])}, batch ${digits(batchMean[i])} ± ` +
      `${digits(batchStd[i])}, drift ${digits(drift[i])}`));
    // All of the slot, so that the title is found anywhere in it.
    group.append(svg("rect", { x, y: TOP, width: slot, height: HEIGHT - TOP - BOTTOM, fill: "transparent" }));
    if (known(mean[i]) && known(std[i])) {
      const top = y(mean[i] + std[i]);
      group.append(svg("rect", { class: "running", x: x + slot * 0.06, y: top, width: slot * 0.88,
                                 height: Math.max(y(mean[i] - std[i]) - top, 1) }),
                   svg("line", { class: "running-mean", x1: x + slot * 0.06, x2: x + slot * 0.94, y1: y(mean[i]),
                                 y2: y(mean[i]) }));
    }
    if (known(batchMean[i]) && known(batchStd[i])) {
      const middle = x + slot / 2;
      group.append(svg("line", { class: "batch", x1: middle, x2: middle, y1: y(batchMean[i] + batchStd[i]),
                                 y2: y(batchMean[i] - batchStd[i]) }),
                   svg("circle", { class: "batch-mean", cx: middle, cy: y(batchMean[i]),
                                   r: Math.min(Math.max(slot / 5, 1), 4) }));
      if (drift[i] > 1) {
        const size = Math.min(Math.max(slot / 3, 2), 5);
        group.append(svg("path", { class: "drifted", d: `M${middle - size} 4h${2 * size}l${-size} ${1.6 * size}z` }));
      }
    }
    if (i % every === 0) {
      group.append(svg("text", { x: x + slot / 2, y: HEIGHT - 10, "text-anchor": "middle" }, String(c)));
    }
    picture.append(group);
  });
  const reach = (middle, deviation, i) => known(middle[i]) && known(deviation[i]) &&
    (isBeyond(middle[i] - deviation[i]) || isBeyond(middle[i] + deviation[i]));
  const numBeyond = channel.filter((_, i) => reach(mean, std, i) || reach(batchMean, batchStd, i)).length;
  return { picture, numBeyond };
}

// Points [x, value] joined, and a line from top to bottom at each of `marks`; `xText` names an x.
export function lineChart(points, marks, label, xText) {
  const { picture, y } = frame([0, ...points.map(([, value]) => value)], label);
  const all = [...points.map(([at]) => at), ...marks];
  if (all.length === 0) return picture;
  const [first, last] = [Math.min(...all), Math.max(...all)];
  const x = (at) => LEFT + ((at - first) / Math.max(last - first, 1e-9)) * (WIDTH - LEFT - RIGHT);
  picture.append(svg("path", { class: "series", d: points.map(([at, value], i) =>
    `${i === 0 ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("") }));
  for (const at of marks) {
    picture.append(svg("line", { class: "replaced", x1: x(at), x2: x(at), y1: TOP, y2: HEIGHT - BOTTOM }));
  }
  for (const [at, value] of points) {
    picture.append(svg("circle", { class: "batch-mean", cx: x(at), cy: y(value), r: 3 },
                       svg("title", {}, `${xText(at)}: ${digits(value)}`)));
  }
  picture.append(svg("text", { x: LEFT, y: HEIGHT - 10 }, xText(first)),
                 svg("text", { x: WIDTH - RIGHT, y: HEIGHT - 10, "text-anchor": "end" }, xText(last)));
  return picture;
}
