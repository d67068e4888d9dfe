"use strict";
(() => {
  const records = JSON.parse(document.getElementById("records").textContent);
  const VIEWS = ["technical", "tradeoffs", "impact"];
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  /* Every text goes into the page as a text node: nothing in a record is ever read as markup. */
  const make = (tag, text = "", attributes = {}) => {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  /* One switch, three views of the same sections; the address keeps the view and the section: #impact/limits. */
  const radios = all('#views input[name="view"]');
  const sections = all("main > section");
  const seen = (section, view) => section.dataset.views.split(" ").includes(view);
  const place = () => {
    const [view, id] = decodeURIComponent(location.hash.slice(1)).split("/");
    return VIEWS.includes(view) ? { view, id } : { view: "technical", id: view };
  };
  const show = (view) => {
    for (const radio of radios) radio.checked = radio.value === view;
    for (const section of sections) section.classList.toggle("off", !seen(section, view));
    document.documentElement.dataset.view = view;
    const links = sections.filter((s) => seen(s, view)).map((s) =>
      make("a", s.dataset.short, { href: `#${view}/${s.id}` }));
    document.getElementById("sections").replaceChildren(...links);
  };
  const go = () => {
    const { view, id } = place();
    const target = id ? document.getElementById(id) : null;
    const fits = !target || !target.dataset.views || seen(target, view);
    show(fits ? view : target.dataset.views.split(" ")[0]);
    if (!target) return;
    target.scrollIntoView();
    const heading = target.querySelector("h2");
    if (heading) heading.focus({ preventScroll: true });
  };
  for (const radio of radios) {
    radio.addEventListener("change", () => {
      history.replaceState(null, "", `#${radio.value}`);
      show(radio.value);
    });
  }
  addEventListener("hashchange", go);
  show(place().view);

  /* The panel of a trial. */
  const panel = document.getElementById("trial");
  let opener = null;
  const pairs = (title, rows) => {
    if (!rows.length) return [];
    const list = make("dl", "", { class: "pairs" });
    for (const [name, value] of rows) {
      const row = make("div");
      row.append(make("dt", name), make("dd", value));
      list.append(row);
    }
    return [make("h3", title), list];
  };
  const open = (id, from) => {
    const trial = Object.hasOwn(records.trials, id) ? records.trials[id] : null;
    if (!trial) return;
    opener = from || null;
    const close = make("button", "Close", { type: "button", class: "close" });
    close.addEventListener("click", shut);
    const said = [trial.role ? `${trial.role}, ${trial.state}` : trial.state, trial.why].filter(Boolean);
    panel.replaceChildren(close, make("h2", trial.says, { id: "trial-title" }), ...said.map((s) => make("p", s)),
      ...pairs("Numbers", trial.numbers), ...pairs("By length", trial.costs), ...pairs("Recipe", trial.steps),
      ...pairs("Time it took", trial.seconds), ...(trial.traceback ? [make("h3", "Where it broke"),
        make("pre", trial.traceback, { tabindex: "0" })] : []), make("p", `record: ${trial.evidence}`, { class: "fine" }));
    panel.dataset.trial = id;
    panel.hidden = false;
    panel.scrollTop = 0;
    panel.focus({ preventScroll: true });
  };
  const shut = () => {
    panel.hidden = true;
    if (opener && opener.isConnected) opener.focus({ preventScroll: true });
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-trial]");
    if (button && button !== panel) open(button.dataset.trial, button);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !panel.hidden) shut();
  });

  /* Tables that can be put in another order, by the value of a cell where it has one. */
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
  };
  const compare = (a, b) => {
    if (typeof a === "string") return a.localeCompare(b, "en", { numeric: true });
    return Number.isNaN(a) ? (Number.isNaN(b) ? 0 : 1) : Number.isNaN(b) ? -1 : a - b;
  };
  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((head, column) => {
      const button = make("button", head.textContent, { type: "button", class: "sort" });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) => (down ? -compare(a, b) : compare(a, b)));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  /* The filter of the decision log. */
  const filter = document.getElementById("filter");
  if (filter) {
    const rows = all("#rejected tbody tr").map((row) => [row, row.textContent.toLowerCase()]);
    const apply = () => {
      const words = filter.words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const [row, text] of rows) {
        const fits = words.every((w) => text.includes(w)) && ["", row.dataset.state].includes(filter.state.value);
        row.hidden = !fits;
        left += fits;
      }
      document.getElementById("count").textContent = `${left} of ${rows.length} recipes`;
    };
    filter.addEventListener("input", apply);
    filter.addEventListener("submit", (event) => event.preventDefault());
  }

  /* Machines and money: arithmetic on requests per core and on what the reader fills in. */
  const form = document.getElementById("capacity");
  if (form) {
    const HOURS = 730;
    const given = (name) => (form[name].valueAsNumber > 0 ? form[name].valueAsNumber : null);
    const put = (line, who, value, digits) => {
      const cell = document.querySelector(`#bill [data-line="${line}"] [data-who="${who}"]`);
      cell.textContent = value === null || !Number.isFinite(value) ? "-"
        : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    };
    const reckon = () => {
      const [requests, size, price, use] = ["requests", "cores", "price", "use"].map(given);
      for (const [who, perCore] of Object.entries(records.rates)) {
        const cores = requests && use ? requests / (perCore * use / 100) : null;
        const machines = cores && size ? Math.ceil(cores / size - 1e-9) : null;
        const hour = machines && price ? machines * price : null;
        put("cores", who, cores, 2);
        put("machines", who, machines, 0);
        put("hour", who, hour, 2);
        put("month", who, hour && hour * HOURS, 0);
      }
    };
    form.addEventListener("input", reckon);
    form.addEventListener("submit", (event) => event.preventDefault());
    reckon();
  }

  /* The charts. Vega's own interpreter evaluates their expressions, so that the page's policy can forbid eval. */
  const draw = async (box) => {
    try {
      const { view } = await vegaEmbed(box, records.charts[box.dataset.chart], {
        mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false, config: records.look,
        tooltip: { disableDefaultStyle: true },
      });
      view.addEventListener("click", (event, item) => {
        if (item && item.datum && item.datum.trial) open(item.datum.trial, null);
      });
    } catch (error) {
      box.replaceChildren(make("p", "This chart could not be drawn; its numbers are below.", { class: "absent" }));
      throw error;
    }
  };
  Promise.all(all("[data-chart]").map(draw)).finally(() => {
    document.documentElement.dataset.ready = "";
    performance.mark("ready");
    if (place().id) go();
  });
})();
