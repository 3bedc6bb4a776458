// Draws what `interactive` made of a chart (s3ray/results/chart.py) as SVG: a panel's size is known only here.
// Hovering says what a point is, the legend's entries switch curves off and on, dragging zooms, a double click ends it.
const drawChart = (() => {
  const DASHES = { solid: "", dash: "6 4", dot: "1.5 3", dashdot: "7 3 1.5 3" };
  const POINT = 4 / 3, LETTER = 6, NEAR = 24, LEGEND_RANKS = 3; // pixels: of a point, of a tick's letter, of a hit
  const escaped = (words) => String(words).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  const symlog = (v) => (Math.abs(v) <= 1 ? v / 1.8 : Math.sign(v) * (1 / 1.8 + Math.log10(Math.abs(v)))); // drawing.SYMLOG
  const polygon = (angles, radius) => (x, y, size) => "M" + angles.map((a, i) => {
    const r = size * (typeof radius === "number" ? radius : radius[i % radius.length]);
    return `${(x + r * Math.sin(a)).toFixed(1)} ${(y - r * Math.cos(a)).toFixed(1)}`;
  }).join("L") + "Z";
  const around = (n, turn = 0) => Array.from({ length: n }, (_, i) => turn + (2 * Math.PI * i) / n);
  const MARKERS = {
    circle: polygon(around(16), 1), square: polygon(around(4, Math.PI / 4), 1.3), diamond: polygon(around(4), 1.4),
    triangle: polygon(around(3), 1.5), star: polygon(around(10), [1, 0.4]),
  };
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");

  const niceStep = (span, most) => {
    const rough = span / Math.max(most, 1), power = 10 ** Math.floor(Math.log10(rough));
    return power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  };
  const ticksOf = (axis, [low, high], room) => {
    if (axis.ticks) return axis.ticks.filter(([place]) => place >= low && place <= high);
    const step = axis.step && (high - low) / axis.step >= 2 ? axis.step : niceStep(high - low, room);
    const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)), first = Math.ceil(low / step - 1e-9);
    const count = Math.floor(high / step + 1e-9) - first + 1;
    return Array.from({ length: Math.max(count, 0) }, (_, i) => (first + i) * step).map((v) => [v, (v + 0).toFixed(digits)]);
  };
  const styled = (line) =>
    `stroke="${line.color}" stroke-width="${(POINT * line.width).toFixed(2)}" stroke-dasharray="${DASHES[line.dash]}" fill="none"`;
  const marker = (curve, x, y) =>
    curve.marker ? `<path class="point" d="${MARKERS[curve.marker](x, y, curve.size * 0.7)}" fill="${curve.color}"/>` : "";

  // One panel at its place's width; remembers its points for hovering, and its scales for zooming.
  const panelSvg = (panel, x, y, box, view) => {
    const { width, height, left, bottom } = box, top = 6, right = 8;
    const scale = (low, high, from, to) => (v) => from + ((v - low) / (high - low)) * (to - from);
    const f = y.symlog ? symlog : (v) => v;
    const px = scale(...(x.inverted ? [view.x[1], view.x[0]] : view.x), left, width - right);
    const linear = scale(f(view.y[0]), f(view.y[1]), height - bottom, top), py = (v) => linear(f(v));
    const hits = [], out = [];
    for (const [place, words] of ticksOf(y, view.y, (height - bottom) / 24)) {
      out.push(`<path class="grid" d="M${left} ${py(place)}H${width - right}"/>`);
      if (box.yWords) out.push(`<text x="${left - 5}" y="${py(place) + 4}" text-anchor="end">${escaped(words)}</text>`);
    }
    for (const [place, words] of ticksOf(x, view.x, (width - left) / 48)) {
      out.push(`<path class="grid" d="M${px(place)} ${top}V${height - bottom}"/>`);
      if (!box.xWords) continue;
      const half = x.turned ? 0 : (LETTER * words.length) / 2; // a long word at an end stays inside
      const at = `${Math.max(half, Math.min(px(place), width - half))} ${height - bottom + (x.turned ? 8 : 15)}`;
      out.push(x.turned
        ? `<text transform="translate(${at}) rotate(-90)" text-anchor="end" dy="4">${escaped(words)}</text>`
        : `<text transform="translate(${at})" text-anchor="middle">${escaped(words)}</text>`);
    }
    out.push(`<path class="axis" d="M${left} ${top}V${height - bottom}H${width - right}"/>`);
    out.push(`<clipPath id="${box.id}"><rect x="${left}" y="0" width="${width - left}" height="${height - bottom + 6}"/></clipPath>`);
    out.push(`<g clip-path="url(#${box.id})">`);
    for (const level of panel.levels.filter((one) => !view.hidden.has(one.label))) {
      out.push(`<path class="level" ${styled(level)} d="M${left} ${py(level.y)}H${width - right}"/>`);
      if (level.label) hits.push({ y: py(level.y), text: `${level.label}\n${level.y.toFixed(2)}` });
    }
    const shown = panel.curves.filter((one) => !view.hidden.has(one.label));
    const barred = shown.filter((one) => !one.band && one.spread.some((s) => s !== null));
    for (const curve of shown) {
      // Bars at one x would hide each other; curves without bars stay.
      const shift = barred.includes(curve) ? 4 * (barred.indexOf(curve) - (barred.length - 1) / 2) : 0;
      const at = curve.x.map((v, i) => (curve.y[i] === null ? null : [px(v) + shift, py(curve.y[i])]));
      const spread = at.flatMap((p, i) => (p && curve.spread[i] != null ? [[p[0], curve.y[i], curve.spread[i]]] : []));
      out.push(`<g class="curve" opacity="${curve.opacity}">`);
      if (curve.band && spread.length) {
        const high = spread.map(([a, v, s]) => `${a.toFixed(1)} ${py(v + s).toFixed(1)}`);
        const low = spread.map(([a, v, s]) => `${a.toFixed(1)} ${py(v - s).toFixed(1)}`);
        out.push(`<path d="M${[...high, ...low.reverse()].join("L")}Z" fill="${curve.color}" fill-opacity="0.15"/>`);
      } else for (const [a, v, s] of spread) {
        const [high, low] = [py(v + s).toFixed(1), py(v - s).toFixed(1)];
        out.push(`<path stroke="${curve.color}" d="M${a} ${low}V${high}M${a - 2.5} ${low}h5M${a - 2.5} ${high}h5"/>`);
      }
      if (curve.width) {
        const line = at.map((p, i) => (p ? `${i && at[i - 1] ? "L" : "M"}${p[0].toFixed(1)} ${p[1].toFixed(1)}` : "")).join("");
        out.push(`<path ${styled(curve)} d="${line}"/>`);
      }
      at.forEach((p, i) => {
        if (!p) return;
        out.push(marker(curve, ...p));
        if (curve.hover[i]) hits.push({ x: p[0], y: p[1], text: curve.hover[i] });
      });
      out.push("</g>");
    }
    const svg = `<svg width="${width}" height="${height}" role="img" aria-label="${escaped(box.name)}">${out.join("")}</g></svg>`;
    const back = (a, b) => {
      const v = view.y.map(f), inner = v[0] + ((height - bottom - b) / (height - bottom - top)) * (v[1] - v[0]);
      const share = (a - left) / (width - right - left), [low, high] = view.x;
      return [x.inverted ? high - share * (high - low) : low + share * (high - low), inner];
    };
    return { svg, hits, back, isLinear: !y.symlog };
  };

  const nearest = (hits, x, y) => {
    const distance = (hit) => (hit.x === undefined ? 4 * Math.abs(hit.y - y) : Math.hypot(hit.x - x, hit.y - y));
    // Of points on each other the one drawn last: a mean lies upon its seeds.
    const least = Math.min(...hits.map(distance));
    return least < NEAR ? hits.findLast((hit) => distance(hit) <= least + 4) : null;
  };

  const swatch = (entry) => {
    const bar = entry.spread?.some((s) => s !== null) && !entry.band ? `<path stroke="${entry.color}" d="M15 1V15"/>` : "";
    const line = entry.width ? `<path ${styled(entry)} d="M1 8H29"/>` : "";
    return `<svg width="30" height="16" aria-hidden="true">${line}${bar}${marker(entry, 15, 8)}</svg>`;
  };

  let count = 0;
  return (place, chart) => {
    const number = count++, hidden = new Set(), zoom = { x: {}, y: {} };
    const yKey = (r, c) => ({ all: "", row: r, column: c })[chart.shared_y] ?? `${r} ${c}`;
    const yMargins = chart.rows.map((y, r) => 14 + LETTER * Math.max(...chart.panels[r].map((panel) =>
      Math.max(...ticksOf(y, panel.limits, 6).map(([, words]) => words.length), 1))));
    const named = (line) => escaped(line).replaceAll("\n", "<br>");

    const legend = (panels) => {
      const entries = new Map();
      for (const panel of panels) {
        for (const curve of panel.curves) entries.has(curve.label) || entries.set(curve.label, { ...curve, rank: curve.spread.length ? 1 : 2 });
        for (const level of panel.levels) entries.has(level.label) || entries.set(level.label, { ...level, rank: LEGEND_RANKS });
      }
      entries.delete("");
      const sorted = [...entries.values()].sort((a, b) => a.rank - b.rank);
      return `<div class="legend">${sorted.map((entry) => `<button type="button" data-label="${escaped(entry.label)}"
        aria-pressed="${!hidden.has(entry.label)}">${swatch(entry)}<span>${escaped(entry.label)}</span></button>`).join("")}</div>`;
    };

    const draw = () => {
      const available = place.clientWidth, isNarrow = available < chart.least, panels = [];
      const columns = chart.columns.length, gap = 10, title = isNarrow ? 0 : 34;
      const isShared = (c) => c > 0 && !isNarrow && chart.rows.some((y) => y.ticks) && ["row", "all"].includes(chart.shared_y);
      const lefts = chart.columns.map((_, c) => (isShared(c) ? 8 : Math.max(...yMargins)));
      const room = available - title - lefts.reduce((a, b) => a + b) - gap * columns;
      const part = (c) => (room * chart.widths[c]) / chart.widths.reduce((a, b) => a + b);
      const sizes = chart.columns.map((_, c) => (isNarrow ? available : Math.floor(lefts[c] + part(c))));
      const cell = (r, c) => {
        const panel = chart.panels[r][c], x = chart.columns[c], y = chart.rows[r], isLast = isNarrow || r === chart.rows.length - 1;
        const bottom = !isLast ? 8 : x.turned ? 12 + LETTER * Math.max(...x.ticks.map(([, words]) => words.length)) : 22;
        const view = { x: zoom.x[c] ?? x.limits, y: zoom.y[yKey(r, c)] ?? panel.limits, hidden };
        const heading = panel.title || (isNarrow ? chart.panels[0][c].title : "");
        const box = {
          width: sizes[c], height: chart.height + bottom, bottom, left: isNarrow ? Math.max(...yMargins) : lefts[c],
          yWords: !isShared(c), xWords: isLast, id: `clip${number}_${r}_${c}`,
          name: [chart.title, heading, y.title].filter(Boolean).join(", "),
        };
        const drawn = panelSvg(panel, x, y, box, view);
        panels.push({ ...drawn, r, c });
        return `<div class="panel"><div class="words">${heading ? `<b>${named(heading)}</b>` : ""}
          ${isNarrow && y.title ? `<i>${named(y.title)}</i>` : ""}
          ${panel.note ? `<small style="color:${panel.note_color}">${named(panel.note)}</small>` : ""}</div>
          ${drawn.svg}${isLast && x.title ? `<div class="name">${named(x.title)}</div>` : ""}</div>`;
      };
      const rows = chart.rows.map((y, r) => (isNarrow ? "" : `<div class="side"><span>${named(y.title)}</span></div>`)
        + chart.columns.map((_, c) => cell(r, c)).join("")
        + (chart.legend_per_row ? `<div class="across">${legend(chart.panels[r])}</div>` : ""));
      const template = isNarrow ? "minmax(0,1fr)" : `${title}px ${sizes.map((size) => `${size}px`).join(" ")}`;
      place.innerHTML = `<div class="panels" style="grid-template-columns:${template};column-gap:${gap}px">${rows.join("")}</div>`
        + (chart.legend_per_row ? "" : legend(chart.panels.flat()));
      place.querySelectorAll(".panel svg").forEach((svg, i) => listen(svg, panels[i]));
      for (const button of place.querySelectorAll("button")) button.onclick = () => {
        const { label } = button.dataset;
        hidden.has(label) ? hidden.delete(label) : hidden.add(label);
        draw();
        place.querySelector(`button[data-label="${CSS.escape(label)}"]`).focus();
      };
    };

    const listen = (svg, { hits, back, isLinear, r, c }) => {
      let from = null, rect = null;
      const letGo = () => { rect?.remove(); from = rect = null; };
      const here = (event) => { const box = svg.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
      svg.onpointermove = (event) => {
        const [x, y] = here(event);
        if (from) {
          rect ??= svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "rect"));
          const box = { x: Math.min(x, from[0]), y: Math.min(y, from[1]), width: Math.abs(x - from[0]), height: Math.abs(y - from[1]), class: "drag" };
          for (const [name, value] of Object.entries(box)) rect.setAttribute(name, value);
        }
        const hit = from ? null : nearest(hits, x, y);
        tip.hidden = !hit;
        if (!hit) return;
        tip.textContent = hit.text;
        document.body.append(tip);
        tip.style.left = `${Math.min(event.clientX + 14, document.documentElement.clientWidth - tip.offsetWidth - 4)}px`;
        tip.style.top = `${Math.max(event.clientY - tip.offsetHeight - 10, 4)}px`;
      };
      svg.onpointerdown = (event) => {
        if (event.pointerType !== "mouse") return svg.onpointermove(event); // a finger asks, and scrolls the page
        from = here(event);
        svg.setPointerCapture(event.pointerId);
        event.preventDefault();
      };
      svg.onpointerup = (event) => {
        const [start, to] = [from, here(event)];
        letGo();
        if (!start || Math.hypot(to[0] - start[0], to[1] - start[1]) < 8) return;
        const [a, b] = [back(...start), back(...to)], ordered = (i) => [a[i], b[i]].sort((one, other) => one - other);
        if (Math.abs(to[0] - start[0]) > 8) zoom.x[c] = ordered(0);
        if (isLinear && Math.abs(to[1] - start[1]) > 8) zoom.y[yKey(r, c)] = ordered(1);
        draw();
      };
      svg.onpointercancel = letGo;
      svg.onpointerleave = () => { tip.hidden = true; };
      svg.ondblclick = () => { zoom.x = {}; zoom.y = {}; draw(); };
    };

    let width = 0;
    new ResizeObserver(() => { if (place.clientWidth !== width) { width = place.clientWidth; draw(); } }).observe(place);
    width = place.clientWidth;
    draw();
  };
})();
