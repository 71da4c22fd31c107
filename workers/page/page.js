// Shows what /api/feed tells. Everything kept here is bounded: a page like this one stays open for weeks.
// Names and labels are only ever set as text.

const BUCKET_S = 2, TIMELINE_S = 300, BUCKETS = TIMELINE_S / BUCKET_S;
const EVENTS_KEPT = 100, PICTURE_EVERY_MS = 1000, SILENCE_MS = 5000, ANNOUNCE_EVERY_MS = 4000;
const HUES = [172, 28, 262, 205, 345, 95, 48, 310, 225, 140, 8, 285];

const dark = matchMedia("(prefers-color-scheme: dark)");
const byId = (id) => document.getElementById(id);
const tiles = new Map(); // by stream name
let heardAt = 0, lastEvent = 0, toldAgain = [];

// --- small things --------------------------------------------------------------------------------

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A label's own hue if that is free, so that it stays the same; else the next free one, while there are any.
const hues = new Map(), taken = new Set();
function hueOf(label) {
  if (hues.has(label)) return hues.get(label);
  let place = 0;
  for (const character of label) place = (place * 31 + character.codePointAt(0)) % 65521;
  place %= HUES.length;
  while (taken.has(place) && taken.size < HUES.length) place = (place + 1) % HUES.length;
  taken.add(place);
  hues.set(label, HUES[place]);
  return HUES[place];
}

function colourOf(label) {
  const hue = hueOf(label);
  return dark.matches ? `hsl(${hue} 42% 62%)` : `hsl(${hue} 48% 42%)`;
}

function paint(element, label) {
  const colour = label ? colourOf(label) : "";
  if (element.dataset.colour === colour) return;
  element.dataset.colour = colour;
  element.style.setProperty("--colour", colour || "transparent");
}

const percent = (share) => `${Math.round(100 * share)}%`;
const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour12: false });

function latencies({ p50, p99 }) {
  const [unit, digits, scale] = p99 < 10 ? ["ms", 0, 1000] : ["s", 1, 1];
  return `${(scale * p50).toFixed(digits)} · ${(scale * p99).toFixed(digits)} ${unit}`;
}

function lasting(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// --- tiles ---------------------------------------------------------------------------------------

const inSight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const tile = tiles.get(entry.target.dataset.name);
    if (tile) tile.inSight = entry.isIntersecting;
  }
}, { rootMargin: "200px" });

class Tile {
  constructor(name) {
    this.name = name;
    this.inSight = true;
    this.pictureAt = this.pictureShown = null;
    this.timeline = []; // [bucket, label, score], rising, BUCKETS at most
    this.element = byId("tile").content.firstElementChild.cloneNode(true);
    this.element.dataset.name = name;
    const find = (selector) => this.element.querySelector(selector);
    this.image = find("img");
    this.state = find(".state");
    this.detail = find(".detail");
    this.rows = [...this.element.querySelectorAll(".labels li")];
    this.canvas = find("canvas");
    this.latency = find(".latency");
    this.dropped = find(".dropped");
    this.fps = find(".fps");
    setText(find("h3"), name);
    find("h3").title = name;
    this.image.alt = `What ${name} sees`;
    this.image.addEventListener("load", () => { this.image.hidden = false; this.loading = false; });
    this.image.addEventListener("error", () => { this.image.hidden = true; this.loading = false; });
    find(".picture").addEventListener("click", () => this.widen());
    this.element.addEventListener("keydown", (press) => {
      if (press.key === "Enter" || press.key === " ") { press.preventDefault(); this.widen(); }
    });
    inSight.observe(this.element);
  }

  widen() {
    this.element.classList.toggle("wide");
    this.drawTimeline();
  }

  remove() {
    inSight.unobserve(this.element);
    this.element.remove();
  }

  show(stream) {
    if (this.shown !== stream.state) {
      if (this.shown) announce(`${this.name} is ${stream.state}`);
      this.element.classList.remove(this.shown);
      this.element.classList.add(stream.state);
      this.shown = stream.state;
      setText(this.state, stream.state);
    }
    setText(this.detail, stream.state === "live" ? "" : stream.detail);
    this.rows.forEach((row, place) => {
      const best = stream.labels[place];
      const [, label, bar, score] = row.children;
      row.hidden = !best;
      if (label.title !== (best?.label ?? "")) label.title = best?.label ?? "";
      setText(label, best ? best.label : "");
      setText(score, best ? percent(best.score) : "");
      paint(row, best ? best.label : "");
      bar.firstElementChild.style.transform = `translateX(${best ? 100 * best.score - 100 : -100}%)`;
    });
    this.pictureAt = stream.picture_at;
    const latency = stream.latency_s;
    setText(this.latency, latency ? latencies(latency) : "–");
    setText(this.dropped, String(stream.dropped));
    this.dropped.classList.toggle("some", stream.dropped > 0);
    setText(this.fps, stream.fps ? stream.fps.toFixed(1) : "–");
    this.element.setAttribute("aria-label", `${this.name}, ${stream.state}` +
      (stream.labels.length ? `, ${stream.labels[0].label} ${percent(stream.labels[0].score)}` : ""));
  }

  showPicture() {
    if (!this.inSight || this.loading || this.pictureAt === this.pictureShown) return;
    this.loading = true;
    this.pictureShown = this.pictureAt;
    this.image.src = `api/streams/${encodeURIComponent(this.name)}/thumbnail.jpg?at=${this.pictureAt}`;
  }

  addToTimeline(entries) {
    const line = this.timeline;
    for (const entry of entries) {
      while (line.length && line[line.length - 1][0] >= entry[0]) line.pop();
      line.push(entry);
    }
    if (line.length > BUCKETS) line.splice(0, line.length - BUCKETS);
    this.drawTimeline();
  }

  drawTimeline() {
    if (!this.inSight) return;
    const { canvas } = this, scale = devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
    if (!width) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const newest = Math.floor(Date.now() / 1000 / BUCKET_S), step = width / BUCKETS;
    const seconds = new Map();
    for (const [bucket, label, score] of this.timeline) {
      const left = width - (newest - bucket + 1) * step;
      if (left < -step) continue;
      const top = height * (1 - Math.max(.06, score));
      context.fillStyle = colourOf(label);
      context.fillRect(Math.floor(left), Math.floor(top), Math.ceil(left + step) - Math.floor(left), height);
      seconds.set(label, (seconds.get(label) || 0) + BUCKET_S);
    }
    const most = [...seconds].sort((a, b) => b[1] - a[1])[0];
    canvas.setAttribute("aria-label", most ? `Last five minutes: mostly ${most[0]}` : "Last five minutes: nothing");
  }
}

function showStreams(streams) {
  const there = new Set(streams.map((stream) => stream.name));
  for (const [name, tile] of tiles) if (!there.has(name)) { tile.remove(); tiles.delete(name); }
  let place = byId("cameras").firstElementChild;
  for (const stream of streams) {
    let tile = tiles.get(stream.name);
    if (!tile) tiles.set(stream.name, tile = new Tile(stream.name));
    if (tile.element !== place) byId("cameras").insertBefore(tile.element, place);
    else place = place.nextElementSibling;
    tile.show(stream);
  }
}

function showTotals(totals) {
  const share = (value) => (typeof value === "number" ? percent(value) : "–");
  setText(byId("total-live"), `${totals.live ?? 0} of ${totals.streams ?? 0}`);
  setText(byId("total-rate"), typeof totals.clips_per_s === "number" ? totals.clips_per_s.toFixed(1) : "–");
  setText(byId("total-fill"), share(totals.batch_fill));
  setText(byId("total-busy"), share(totals.device_busy));
  setText(byId("total-dropped"), String(totals.dropped ?? 0));
}

// --- events --------------------------------------------------------------------------------------

// A new connection tells all events again, up to the last one shown or beyond. If they end below it, clipmux has begun
// anew after the clock was set back, and they are new.
function hearEvent(event) {
  if (event.id <= lastEvent) toldAgain.push(event);
  else { toldAgain = []; showEvent(event); }
}

function hearNoMoreEvents() {
  if (toldAgain.length && toldAgain[toldAgain.length - 1].id < lastEvent) toldAgain.forEach(showEvent);
  toldAgain = [];
}

function showEvent(event) {
  lastEvent = event.id;
  byId("no-events").hidden = true;
  const list = byId("events");
  const key = [event.stream, event.label, event.connection, event.start_s, event.start.slice(0, 16)].join("\n");
  let item = [...list.children].find((other) => other.dataset.key === key); // its end belongs to its beginning
  if (!item) {
    item = byId("event").content.firstElementChild.cloneNode(true);
    item.dataset.key = key;
    setText(item.querySelector("b"), event.label);
    setText(item.querySelector(".where"), event.stream);
    setText(item.querySelector("time"), clock(event.start));
    item.querySelector("time").dateTime = event.start;
    paint(item, event.label);
    list.prepend(item);
    while (list.children.length > EVENTS_KEPT) list.lastElementChild.remove();
    announce(`${event.label} on ${event.stream}`);
  }
  const going = event.event === "started";
  item.classList.toggle("going", going);
  setText(item.querySelector(".span"), going ? "now" : lasting((new Date(event.end) - new Date(event.start)) / 1000));
}

// A screen reader is told at most one sentence every few seconds; what came in between is counted.
let announcedAt = 0, unsaid = 0, announcing = 0, sentence = "";
function announce(text) {
  sentence = text;
  unsaid += 1;
  if (announcing) return;
  announcing = setTimeout(() => {
    announcing = 0;
    setText(byId("announcer"), unsaid > 1 ? `${sentence}, and ${unsaid - 1} more` : sentence);
    unsaid = 0;
    announcedAt = Date.now();
  }, Math.max(0, announcedAt + ANNOUNCE_EVERY_MS - Date.now()));
}

// --- the feed ------------------------------------------------------------------------------------

function say(text, kind) {
  const link = byId("link");
  setText(link, text);
  link.className = `link ${kind}`;
}

function listen() {
  const source = new EventSource("api/feed");
  const on = (kind, take) => source.addEventListener(kind, (message) => {
    heardAt = Date.now();
    say("connected", "good");
    take(JSON.parse(message.data));
  });
  on("snapshot", (snapshot) => { showTotals(snapshot.totals); showStreams(snapshot.streams); });
  on("history", (timelines) => { // events come before it
    hearNoMoreEvents();
    for (const [name, entries] of Object.entries(timelines)) tiles.get(name)?.addToTimeline(entries);
  });
  on("happened", hearEvent);
  source.addEventListener("open", () => { toldAgain = []; }); // else one that breaks again and again would fill it
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
    source.close();
    setTimeout(listen, 3000);
  });
}

setInterval(() => {
  if (Date.now() - heardAt > SILENCE_MS) say("no connection: what is shown is old", "bad");
}, 1000);
setInterval(() => {
  if (!document.hidden) for (const tile of tiles.values()) tile.showPicture();
}, PICTURE_EVERY_MS);
dark.addEventListener("change", () => {
  for (const tile of tiles.values()) tile.drawTimeline();
});
heardAt = Date.now();
listen();
