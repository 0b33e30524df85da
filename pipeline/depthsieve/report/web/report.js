"use strict";
// The gallery of a report, and the viewer of one image. Everything comes from files beside the page: gallery.js calls
// depthsieve.start once, images/N.js calls depthsieve.image when it is asked for. Text is only ever set as text.
const depthsieve = (() => {
  const FILES = document.currentScript.dataset.files;
  const PAGE = 48; // images of one page of the gallery
  const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff]/g;
  let data; // what gallery.js brings: see _gallery in report/write.py
  const state = { find: "", source: "", kind: "", column: "", least: "", most: "", order: "worst", falling: "", page: 0, rows: [] };
  const view = { row: null, maps: null, opener: null, large: null };
  const dials = { drop: 0.1, scope: "image" };
  const waiting = new Map();

  // ---- small things -------------------------------------------------------------------------------------------------

  /** An element with attributes (and listeners, on...) and children, which are elements or text. */
  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value === true) element.setAttribute(key, "");
      else if (value !== false && value !== null) element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }
  const get = (id) => document.getElementById(id);
  const SPELT = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
  const shown = (text) => text.replace(UNSEEN, (sign) => SPELT[sign] ?? `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const count = (number) => number.toLocaleString("en");
  const short = (number) => (number === null ? "not known" : String(Number(number.toPrecision(4))));
  const percent = (share) => (share > 0 && share < 0.001 ? "under 0.1%" : `${(100 * share).toFixed(1)}%`);
  const errorOf = (number, code) => (data.stores[number].calibrated ? ` (expected error ${percent(data.stores[number].errors[code])})` : "");
  const sourceOf = (id) => id.slice(0, id.indexOf("/"));
  const option = (value, text) => make("option", { value }, text);

  function loadScript(number) {
    return new Promise((resolve, reject) => {
      waiting.set(number, resolve);
      const script = make("script", { src: `${FILES}/images/${number}.js` });
      script.onload = () => script.remove();
      script.onerror = () => reject(new Error(`${script.getAttribute("src")} cannot be read; write the report again`));
      document.head.append(script);
    });
  }

  /** A map as _packed in report/maps.py has it: each row less the one above it. */
  async function unpacked(text, width) {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const map = new Uint8Array(await new Response(stream).arrayBuffer());
    for (let pixel = width; pixel < map.length; pixel += 1) map[pixel] += map[pixel - width];
    return map;
  }

  async function photoOf(text) {
    const image = new Image();
    image.src = `data:image/jpeg;base64,${text}`;
    await image.decode();
    return image;
  }

  // ---- masks: as reliability/masking.py has them --------------------------------------------------------------------

  /** For each code how many valid pixels it or a smaller one has. */
  function validBelow(histogram) {
    let sum = -histogram[0];
    return histogram.map((pixels) => (sum += pixels));
  }

  /** The largest code that masks at most `drop` of the valid pixels, and the share that it really masks. `drop` counts
   *  as the decimal that it is written as, as floor(drop * n) in Python. */
  function threshold(histogram, drop) {
    const below = validBelow(histogram);
    const valid = below[255];
    const digits = String(drop).includes("e") ? drop.toFixed(12) : String(drop);
    const places = (digits.split(".")[1] ?? "").length;
    const allowed = Number((BigInt(valid) * BigInt(digits.replace(".", ""))) / 10n ** BigInt(places));
    let code = 0;
    while (code < 255 && below[code] <= allowed) code += 1;
    return { code, valid, share: valid ? below[Math.max(code, 1) - 1] / valid : 0 };
  }

  // ---- the gallery --------------------------------------------------------------------------------------------------

  function start(given) {
    data = given;
    dials.drop = data.drop;
    for (const name of Object.keys(data.numbers)) if (data.numbers[name].every((value) => value === null)) delete data.numbers[name];
    get("app").append(tools(), make("p", { id: "found", class: "found", role: "status" }), make("ul", { id: "cards", class: "cards-list" }),
      make("nav", { id: "pages", class: "pages", "aria-label": "Pages of the gallery" }));
    document.body.append(viewer());
    update();
  }

  function tools() {
    const change = (key) => (event) => { state[key] = event.target.value; update(); };
    const select = (id, key, label, options) =>
      make("label", {}, label, make("select", { id, onchange: change(key) }, ...options));
    const field = (key, type, label, more = {}) =>
      make("input", { id: `tool-${key}`, type, "aria-label": label, oninput: change(key), ...more });
    const columns = () => Object.keys(data.numbers).map((name) => option(name, name));
    const sources = [...new Set(data.ids.map(sourceOf))].sort();
    const kinds = [["", "all"], ["labelled", "with a label"]];
    if (data.states.some((one) => one !== "labelled")) kinds.push(["failed", "without a label"]);
    if (data.steps) {
      kinds.push(["kept", "kept by the subset"], ["dropped", "dropped by the subset"]);
      for (const step of data.stepNames) kinds.push([`step:${step}`, `dropped: ${step}`]);
    }
    const order = select("order", "order", "Sort", [option("worst", "least reliable first"), option("best", "most reliable first"),
      option("random", "at random"), option("id", "by name")]);
    order.querySelector("select").append(make("optgroup", { label: "by a number" }, ...columns()));
    const looks = ["photo", "depth", "reliability"].map((look) => make("label", {}, make("input", { type: "radio", name: "look",
      value: look, checked: look === "photo", onchange: () => { get("cards").className = `cards-list show-${look}`; } }), make("span", {}, look)));
    return make("form", { class: "tools", "aria-label": "Search, sort and filter", onsubmit: (event) => event.preventDefault() },
      make("label", { class: "find" }, "Search", field("find", "search", "Search by id", { placeholder: "part of an id" })),
      order,
      select("falling", "falling", "Numbers", [option("", "lowest first"), option("yes", "highest first")]),
      sources.length > 1 ? select("source", "source", "Source", [option("", "all"), ...sources.map((one) => option(one, shown(one)))]) : null,
      kinds.length > 2 ? select("kind", "kind", "Images", kinds.map(([value, text]) => option(value, text))) : null,
      make("fieldset", {}, make("legend", {}, "Only where"), make("div", { class: "row" },
        make("select", { id: "column", "aria-label": "Number to filter by", onchange: change("column") }, option("", "any number"), ...columns()),
        field("least", "number", "At least", { step: "any", placeholder: "from" }), field("most", "number", "At most", { step: "any", placeholder: "to" }))),
      make("fieldset", {}, make("legend", {}, "Show"), make("div", { class: "choice" }, ...looks)));
  }

  function passes(row) {
    const id = data.ids[row];
    if (state.find && !id.toLowerCase().includes(state.find.toLowerCase())) return false;
    if (state.source && sourceOf(id) !== state.source) return false;
    const labelled = data.states[row] === "labelled";
    if (state.kind === "labelled" && !labelled) return false;
    if (state.kind === "failed" && labelled) return false;
    if (state.kind === "kept" && data.steps[row] !== "") return false;
    if (state.kind === "dropped" && data.steps[row] === "") return false;
    if (state.kind.startsWith("step:") && data.steps[row] !== state.kind.slice(5)) return false;
    if (!state.column) return true;
    const value = data.numbers[state.column][row];
    if (state.least !== "" && !(value !== null && value >= Number(state.least))) return false;
    return state.most === "" || (value !== null && value <= Number(state.most));
  }

  /** Rows in the order of the gallery; what has no such number comes last. */
  function sorted(rows) {
    if (state.order === "id") return rows.sort((one, other) => (data.ids[one] < data.ids[other] ? -1 : 1));
    if (state.order === "random") {
      for (let end = rows.length - 1; end > 0; end -= 1) {
        const at = Math.floor(Math.random() * (end + 1));
        [rows[end], rows[at]] = [rows[at], rows[end]];
      }
      return rows;
    }
    const values = data.numbers[{ worst: "reliability", best: "reliability" }[state.order] ?? state.order];
    const sign = state.order === "best" || (state.order !== "worst" && state.falling) ? -1 : 1;
    const rank = (row) => (values[row] === null ? Infinity : sign * values[row]);
    return rows.sort((one, other) => (rank(one) === rank(other) ? one - other : rank(one) - rank(other)));
  }

  function update() {
    get("falling").disabled = !(state.order in data.numbers);
    state.page = 0;
    state.rows = sorted([...data.ids.keys()].filter(passes));
    render();
  }

  function render() {
    const pages = Math.max(1, Math.ceil(state.rows.length / PAGE));
    const first = state.page * PAGE;
    const here = state.rows.slice(first, first + PAGE);
    get("cards").replaceChildren(...here.map(card));
    let told = state.rows.length ? `${count(first + 1)} to ${count(first + here.length)} of ${count(state.rows.length)} images` : "No image fits.";
    if (!state.rows.length && data.shown < data.images) told += ` The gallery has ${count(data.shown)} of ${count(data.images)} images; the command's option --images takes more.`;
    get("found").textContent = told;
    const turn = (step, text) => make("button", { type: "button", disabled: !(state.page + step in [...Array(pages)]), onclick: () => {
      state.page += step;
      render();
      get("gallery").scrollIntoView();
      (get("cards").querySelector("button") ?? get("gallery")).focus({ preventScroll: true });
    } }, text);
    get("pages").replaceChildren(...(pages > 1 ? [turn(-1, "Previous page"), make("span", {}, `page ${state.page + 1} of ${pages}`), turn(1, "Next page")] : []));
  }

  function card(row) {
    const id = data.ids[row];
    const name = make("b", { title: shown(id) }, shown(id.slice(id.indexOf("/") + 1)));
    const why = data.steps?.[row] ? `dropped: ${data.steps[row]}` : null;
    if (data.states[row] !== "labelled") {
      return make("li", {}, make("div", { class: "tile", "data-row": row }, make("span", { class: "frame" }, make("p", {}, shown(data.reasons[row] ?? ""))),
        make("span", { class: "about" }, name, make("span", {}, data.states[row]))));
    }
    const [width, height, stride] = data.sizes[row];
    const crop = make("span", { class: width / height > 4 / 3 ? "crop wide" : "crop tall" },
      make("img", { src: `${FILES}/images/${row}.jpg`, alt: "", loading: "lazy", decoding: "async" }));
    crop.style.aspectRatio = `${width} / ${height}`;
    crop.style.setProperty("--stride", stride / width);
    const column = state.order in data.numbers ? state.order : "reliability";
    return make("li", {}, make("button", { type: "button", class: "tile", "data-row": row, onclick: (event) => open(row, event.currentTarget) },
      make("span", { class: "frame" }, crop),
      make("span", { class: "about" }, name, make("span", {}, `${column} ${short(data.numbers[column][row])}`), why && make("span", {}, shown(why)))));
  }

  // ---- the viewer ---------------------------------------------------------------------------------------------------

  function viewer() {
    const step = (by) => () => move(by);
    const setDrop = (event) => {
      const value = Number(event.target.value) / 100;
      if (event.target.value === "" || !(value >= 0 && value < 1)) return;
      dials.drop = Number(value.toFixed(6));
      for (const id of ["drop", "drop-number"]) if (get(id) !== event.target) get(id).value = String(Number((100 * dials.drop).toFixed(4)));
      paintMasks();
    };
    const scopes = [["image", "each image"], ["dataset", "dataset"]].map(([value, text]) => make("label", {},
      make("input", { type: "radio", name: "scope", value, checked: value === dials.scope, onchange: () => { dials.scope = value; paintMasks(); } }), make("span", {}, text)));
    const at = String(Number((100 * dials.drop).toFixed(4)));
    const dialog = make("dialog", { id: "viewer", "aria-labelledby": "viewer-title", onclose: closed, onkeydown: pressed },
      make("div", { class: "viewer" },
        make("header", {}, make("h2", { id: "viewer-title", tabindex: "-1" }),
          make("button", { type: "button", id: "before", "aria-label": "Previous image", onclick: step(-1) }, "←"),
          make("button", { type: "button", id: "after", "aria-label": "Next image", onclick: step(1) }, "→"),
          make("button", { type: "button", id: "close", "aria-label": "Close", onclick: () => dialog.close() }, "✕")),
        make("div", { class: "body" },
          make("div", { id: "problems" }), make("div", { id: "maps" }),
          make("div", { class: "dials" },
            make("div", { class: "row" },
              make("label", { for: "drop" }, "drop"),
              make("input", { id: "drop", type: "range", min: 0, max: 99, step: 0.5, value: at, oninput: setDrop, "aria-describedby": "masked" }),
              make("span", {}, make("input", { id: "drop-number", type: "number", min: 0, max: 99.9, step: 0.1, value: at, oninput: setDrop, "aria-label": "drop in per cent" }), " %"),
              make("fieldset", {}, make("legend", {}, "of"), make("div", { class: "choice" }, ...scopes))),
            make("p", { id: "masked", class: "told", role: "status" }),
            make("p", { id: "spot", class: "told soft" })),
          make("div", { id: "codes" }), make("dl", { id: "values", class: "values" }))));
    return dialog;
  }

  async function open(row, opener = null) {
    if (opener) view.opener = opener;
    view.row = row;
    view.maps = null;
    const id = data.ids[row];
    get("viewer-title").textContent = shown(id);
    const place = state.rows.indexOf(row);
    get("before").disabled = neighbour(place, -1) === null;
    get("after").disabled = neighbour(place, 1) === null;
    get("maps").replaceChildren();
    get("codes").replaceChildren();
    get("problems").replaceChildren();
    get("masked").textContent = "Loading …";
    get("spot").textContent = "";
    get("values").replaceChildren(...Object.entries(data.numbers).map(([name, values]) =>
      make("div", { title: data.about[name] ?? "" }, make("dt", {}, name), make("dd", {}, short(values[row])))));
    if (!get("viewer").open) get("viewer").showModal();
    get("viewer").scrollTop = 0;
    try {
      const body = await loadScript(row);
      const photo = body.photo === null ? null : await photoOf(body.photo);
      const labels = await Promise.all(body.labels.map(async (one) => one && { ...one, reliability: await unpacked(one.reliability, one.width), depth: await unpacked(one.depth, one.width) }));
      if (view.row !== row) return; // another one was asked for meanwhile
      for (const one of labels) if (one) count256(one);
      view.maps = { photo, labels };
      show(row);
    } catch (error) {
      if (view.row === row) { problem(error.message); get("masked").textContent = ""; }
    }
  }

  /** How many pixels have each code, and the lowest and highest code of a valid one. */
  function count256(label) {
    label.histogram = new Array(256).fill(0);
    for (const code of label.reliability) label.histogram[code] += 1;
    label.low = Math.max(1, label.histogram.findIndex((pixels, code) => code && pixels));
    label.high = Math.max(1, label.histogram.findLastIndex((pixels, code) => code && pixels));
  }

  const problem = (text) => get("problems").append(make("p", { class: "problem" }, shown(text)));

  function neighbour(place, by) {
    for (let at = place + by; at in state.rows; at += by) if (data.states[state.rows[at]] === "labelled") return state.rows[at];
    return null;
  }

  function move(by) {
    const next = neighbour(state.rows.indexOf(view.row), by);
    if (next !== null) open(next);
  }

  function pressed(event) {
    if (event.target.matches("input, select") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") move(-1);
    else if (event.key === "ArrowRight") move(1);
  }

  function closed() {
    const card = get("cards").querySelector(`button[data-row="${view.row}"]`);
    view.row = view.maps = null;
    (card ?? view.opener)?.focus();
  }

  function show(row) {
    const { photo, labels } = view.maps;
    const name = (number, text) => (labels.length > 1 ? `${text} of ${shown(data.stores[number].name)}` : text);
    if (data.steps?.[row]) problem(`Dropped by the subset, ${data.steps[row]}: ${data.whyDropped[row]}`);
    if (!photo) problem(data.reasons[row] ?? "The photo cannot be read.");
    const figures = [figure("photo", "photo", labels.find((one) => one), [])];
    labels.forEach((one, number) => {
      if (!one) { problem(`${data.stores[number].name} has no label of this image.`); return; }
      const [low, high] = one.codes.map(Math.round);
      const error = (code) => percent(data.stores[number].errors[code] ?? 1);
      const expected = (from, to) => (!data.stores[number].calibrated ? "not calibrated" : `expected error ${error(from)}${to > from ? ` to ${error(to)}` : ""}`);
      figures.push(
        figure(`depth-${number}`, name(number, "depth"), one, [scale("far", "depth", "near")]),
        figure(`reliability-${number}`, name(number, "reliability"), one, high > low ? [scale(`${low}`, "reliability", `${high}`), expected(low, high)]
          : [`code ${low} everywhere, ${expected(low, high)}`]),
        figure(`mask-${number}`, name(number, "mask"), one, [swatch(data.colours.masked), "left out", ...(one.histogram[0] ? [swatch(data.colours.checks[0]), "no label"] : [])]));
    });
    get("maps").replaceChildren(make("div", { class: labels.length > 1 ? "maps compared" : "maps" }, ...figures));
    if (view.large && get(`figure-${view.large}`)) enlarge(view.large, true);
    paintPhoto(get("canvas-photo"), photo, labels.find((one) => one));
    labels.forEach((one, number) => {
      if (!one) return;
      paintLevels(get(`canvas-depth-${number}`), one, one.depth, data.colours.depth);
      const [low, high] = one.codes;
      const levels = one.reliability.map((code) => levelOf(code, low, high));
      paintLevels(get(`canvas-reliability-${number}`), one, levels, data.colours.reliability);
    });
    get("codes").replaceChildren(...labels.flatMap((one, number) => (one ? [
      make("p", { class: "soft" }, `Pixels by reliability code, ${one.low === one.high ? `${one.low} everywhere` : `${one.low} to ${one.high}`}${labels.length > 1 ? `: ${shown(data.stores[number].name)}` : ""}`),
      make("canvas", { id: `codes-${number}`, class: "codes-here", width: 1020, height: 96, "aria-hidden": "true" })] : [])));
    paintMasks();
  }

  function figure(key, title, label, legend) {
    const canvas = make("canvas", { id: `canvas-${key}`, width: label.width, height: label.height, role: "img", "aria-label": title,
      class: key === "photo" || key.startsWith("mask") ? "" : "sharp" });
    const fit = make("div", { class: "fit" }, canvas, make("span", { class: "spot", hidden: true }));
    fit.style.setProperty("--ratio", label.width / label.height);
    fit.addEventListener("pointermove", (event) => pointAt(fit, event));
    fit.addEventListener("pointerleave", () => { for (const spot of document.querySelectorAll(".spot")) spot.hidden = true; });
    return make("figure", { id: `figure-${key}` }, make("div", { class: "stage" }, fit), make("figcaption", {}, make("b", {}, title), ...legend,
      make("button", { type: "button", "aria-pressed": "false", "aria-label": `Enlarge ${title}`, onclick: () => enlarge(key, view.large !== key) }, "enlarge")));
  }

  function enlarge(key, on) {
    view.large = on ? key : null;
    for (const maps of document.querySelectorAll(".maps")) maps.classList.toggle("one-large", on);
    for (const one of document.querySelectorAll(".maps figure")) {
      const mine = on && one.id === `figure-${key}`;
      one.classList.toggle("large", mine);
      one.querySelector("button").textContent = mine ? "show all" : "enlarge";
      one.querySelector("button").setAttribute("aria-pressed", String(mine));
    }
  }

  function pointAt(fit, event) {
    if (!view.maps) return;
    const box = fit.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (!(x >= 0 && x < 1 && y >= 0 && y < 1)) return;
    for (const spot of document.querySelectorAll(".spot")) {
      spot.hidden = false;
      spot.style.left = `${100 * x}%`;
      spot.style.top = `${100 * y}%`;
    }
    get("spot").textContent = view.maps.labels.map((one, number) => one && told(one, number, x, y)).filter(Boolean).join("; ");
  }

  function told(one, number, x, y) {
    const [column, row] = [Math.floor(x * one.width), Math.floor(y * one.height)];
    const code = one.reliability[row * one.width + column];
    const who = view.maps.labels.length > 1 ? `${shown(data.stores[number].name)} at ` : "at ";
    if (!code) return `${who}${column}, ${row}: no label`;
    const inverse = one.far + (one.depth[row * one.width + column] / 255) * (one.near - one.far);
    const depth = data.stores[number].quantity === "depth" ? `about ${short(1 / inverse)} m` : `inverse depth about ${short(inverse)}`;
    return `${who}${column}, ${row}: ${depth}, reliability ${code}${errorOf(number, code)}`;
  }

  // ---- painting -----------------------------------------------------------------------------------------------------

  /** The grey of the chequerboard that stands where there is no label, about 40 fields on the short side. */
  function checkAt(pixel, { width, height }) {
    const field = Math.max(2, Math.floor(Math.min(width, height) / 40));
    return data.colours.checks[(Math.floor(pixel / width / field) + Math.floor((pixel % width) / field)) % 2];
  }

  const packed = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // as a canvas has it

  /** Draw over a canvas pixel by pixel; `colourOf` gives a packed colour, or 0 for what is to stay as it is. */
  function paint(canvas, label, colourOf) {
    const layer = make("canvas", { width: label.width, height: label.height });
    const pixels = layer.getContext("2d").createImageData(label.width, label.height);
    const colours = new Uint32Array(pixels.data.buffer);
    for (let pixel = 0; pixel < colours.length; pixel += 1) {
      colours[pixel] = label.reliability[pixel] === 0 ? packed(checkAt(pixel, label)) : colourOf(pixel);
    }
    layer.getContext("2d").putImageData(pixels, 0, 0);
    canvas.getContext("2d").drawImage(layer, 0, 0);
  }

  function paintLevels(canvas, label, levels, table) {
    const colours = Uint32Array.from(table, packed);
    paint(canvas, label, (pixel) => colours[levels[pixel]]);
  }

  function paintPhoto(canvas, photo, label) {
    const context = canvas.getContext("2d");
    context.fillStyle = "#808080";
    context.fillRect(0, 0, label.width, label.height);
    if (photo) context.drawImage(photo, 0, 0, label.width, label.height);
  }

  function paintMasks() {
    if (!view.maps) return;
    const { photo, labels } = view.maps;
    const lines = labels.map((one, number) => {
      if (!one) return null;
      const histogram = dials.scope === "image" ? one.histogram : data.stores[number].histogram;
      const { code } = threshold(histogram, dials.drop);
      const canvas = get(`canvas-mask-${number}`);
      paintPhoto(canvas, photo, one);
      const masked = packed(data.colours.masked);
      paint(canvas, one, (pixel) => (one.reliability[pixel] < code ? masked : 0));
      const below = validBelow(one.histogram);
      const gone = below[code - 1];
      const text = `${percent(below[255] ? gone / below[255] : 0)} of the valid pixels left out: ${count(gone)} under code ${code}${errorOf(number, code)}`;
      canvas.setAttribute("aria-label", `mask: ${text}`);
      paintCodes(get(`codes-${number}`), one, code);
      return labels.length > 1 ? `${shown(data.stores[number].name)}: ${text}` : text;
    });
    get("masked").textContent = lines.filter(Boolean).join("\n");
  }

  /** The codes of this image as bars, those that are left out in the mask's colour. */
  function paintCodes(canvas, label, code) {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    const most = Math.max(1, ...label.histogram.slice(1));
    const { low, high } = label;
    const step = canvas.width / (high - low + 1);
    for (let at = low; at <= high; at += 1) {
      const level = Math.round(levelOf(at, ...label.codes));
      context.fillStyle = `rgb(${at < code ? data.colours.masked : data.colours.reliability[level]})`;
      const height = (canvas.height * label.histogram[at]) / most;
      context.fillRect((at - low) * step, canvas.height - height, step * 0.85, height);
    }
  }

  // The colour of a code, 0 to 255, where colours are stretched from low to high; the middle one where all codes are one.
  function levelOf(code, low, high) {
    return high > low ? Math.min(Math.max((255 * (code - low)) / (high - low), 0), 255) : 128;
  }

  function scale(low, name, high) {
    const canvas = make("canvas", { width: 64, height: 1, "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    for (let at = 0; at < 64; at += 1) {
      context.fillStyle = `rgb(${data.colours[name][Math.round((at * 255) / 63)]})`;
      context.fillRect(at, 0, 1, 1);
    }
    return make("span", { class: "scale" }, low, canvas, high);
  }

  function swatch(colour) {
    const element = make("span", { class: "swatch" });
    element.style.background = `rgb(${colour})`;
    return element;
  }

  return { start, image: (number, body) => { waiting.get(number)?.(body); waiting.delete(number); } };
})();
