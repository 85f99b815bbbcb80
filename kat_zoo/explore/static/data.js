// 1. The table: a file or an example, its columns, what is wrong with it.

import { digits, disable, dropzone, h, heading, plural, redraw } from "./dom.js";
import { bars } from "./plots.js";

const MANY = 20; // columns from which a filter is shown

let changing = false;
let draft = null; // columns that the user has marked and not yet taken
let begun = ""; // the table and its columns in use that the draft began with
let filter = "";
export const units = new Map(); // unit of each column by its name, as the user wrote it

export function data(root, { view, examples, actions }) {
  const table = view?.data;
  if (!table || changing) {
    redraw(root, heading("h-data", "1", "Data"), opening(examples, actions), table && h("button", { class: "plain", "data-key": "keep", onclick: () => toggle(root, false, { view, examples, actions }) }, `Keep ${table.name}`));
    return;
  }
  const now = JSON.stringify([table.name, table.rows, table.columns.map((column) => column.name), table.inputs, table.target]);
  if (now !== begun) draft = { target: table.target, inputs: new Set(table.inputs ?? []) };
  begun = now;
  for (const column of table.columns) if (!units.has(column.name)) units.set(column.name, column.unit);
  redraw(
    root,
    heading("h-data", "1", "Data", h("button", { class: "plain", "data-key": "change", onclick: () => toggle(root, true, { view, examples, actions }) }, "Change")),
    h("p", { class: "muted wrap" }, h("strong", {}, table.name), ` · ${plural(table.rows, "row")} · ${plural(table.columns.length, "column")}`),
    table.notes.length > 0 && remarks(table.notes),
    chooser(root, table, actions),
    preview(table),
  );
}

function toggle(root, value, context) {
  changing = value;
  data(root, context);
}

function opening(examples, actions) {
  const take = (file) => {
    changing = false;
    begun = "";
    actions.table(file);
  };
  return [
    dropzone({ label: "Drop a CSV file, or choose one", hint: "It stays on this machine.", accept: ".csv,.tsv,.txt,.json,text/csv", key: "file", take }),
    h("p", { class: "muted" }, "Or begin with an example:"),
    h(
      "div",
      { class: "examples" },
      examples.map((example) =>
        h(
          "button",
          {
            class: "example",
            "data-key": `example ${example.name}`,
            onclick: () => {
              changing = false;
              begun = "";
              actions.step("open_example", { name: example.name });
            },
          },
          h("strong", {}, example.title),
          h("span", { class: "muted" }, example.text),
        ),
      ),
    ),
  ];
}

function remarks(notes) {
  return h(
    "details",
    { class: "remarks", "data-key": "remarks" },
    h("summary", {}, plural(notes.length, "remark"), " about the file"),
    h("ul", {}, notes.map((note) => h("li", {}, note))),
  );
}

function chooser(root, table, actions) {
  const rows = h("tbody", {});
  const apply = h("button", { class: "primary", "data-key": "use columns", hidden: true, onclick: () => actions.step("choose", { inputs: table.columns.map((c) => c.name).filter((name) => draft.inputs.has(name) && name !== draft.target), target: draft.target }) }, "Use these columns");
  const count = h("span", { class: "muted" });
  const tell = () => {
    const same = draft.target === table.target && draft.inputs.size === (table.inputs ?? []).length && (table.inputs ?? []).every((name) => draft.inputs.has(name));
    apply.hidden = same;
    disable(apply, !draft.target || ![...draft.inputs].some((name) => name !== draft.target));
    count.textContent = `${plural(draft.inputs.size, "input")} explain ${draft.target ?? "nothing yet"}.`;
  };
  const shown = () => {
    rows.replaceChildren(
      ...table.columns.filter((column) => column.name.toLowerCase().includes(filter.toLowerCase())).map((column) => line(column, tell, shown, actions)),
    );
  };
  shown();
  tell();
  return [
    table.columns.length > MANY &&
      h("input", {
        type: "search",
        class: "wide",
        placeholder: "Find a column",
        "aria-label": "Find a column",
        value: filter,
        "data-key": "filter",
        oninput: (event) => {
          filter = event.target.value;
          shown();
        },
      }),
    h(
      "div",
      { class: "scroll", "data-scroll": "columns", tabindex: table.columns.length > 8 ? 0 : null, role: "group", "aria-label": "Columns" },
      h(
        "table",
        { class: "columns" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Input"), h("th", { scope: "col" }, "Target"), h("th", { scope: "col" }, "Column"), h("th", { scope: "col" }, "Unit"))),
        rows,
      ),
    ),
    h("p", { class: "row between" }, count, apply),
    table.target && h("p", { class: "muted" }, table.held ? `${table.train.toLocaleString("en")} rows to fit, ${table.held.toLocaleString("en")} held out to judge.` : `${plural(table.train, "row")}: too few to hold some out, so nothing can be called exact.`),
  ];
}

function line(column, tell, shown, actions) {
  const id = column.name;
  const isTarget = draft.target === id;
  return h(
    "tr",
    { class: column.text ? "off" : "" },
    h(
      "td",
      {},
      h("input", {
        type: "checkbox",
        "aria-label": `${id} explains`,
        "data-key": `input ${id}`,
        disabled: column.text || isTarget,
        checked: draft.inputs.has(id) && !isTarget,
        onchange: (event) => {
          if (event.target.checked) draft.inputs.add(id);
          else draft.inputs.delete(id);
          tell();
        },
      }),
    ),
    h(
      "td",
      {},
      h("input", {
        type: "radio",
        name: "target",
        "aria-label": `${id} is explained`,
        "data-key": `target ${id}`,
        disabled: column.text,
        checked: isTarget,
        onchange: () => {
          if (draft.target) draft.inputs.add(draft.target);
          draft.target = id;
          draft.inputs.delete(id);
          shown();
          tell();
        },
      }),
    ),
    h(
      "td",
      {},
      h("span", { class: "name wrap" }, id),
      column.bars
        ? h("span", { class: "facts" }, bars(column.bars), h("span", { class: "muted" }, `${digits(column.low, 3)} … ${digits(column.high, 3)}`), column.missing > 0 && h("span", { class: "warn" }, plural(column.missing, "gap")))
        : h("span", { class: "muted" }, column.text ? "words" : "empty"),
    ),
    h("td", {}, !column.text && h("input", { class: "unit", type: "text", maxlength: 20, "aria-label": `unit of ${id}`, "data-key": `unit ${id}`, value: units.get(id) ?? "", oninput: (event) => (units.set(id, event.target.value.trim()), actions.units()) })),
  );
}

function preview(table) {
  const shown = table.cells[0]?.length ?? 0;
  return h(
    "details",
    { "data-key": "rows" },
    h("summary", {}, "First rows"),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "group", "aria-label": "First rows" },
      h(
        "table",
        { class: "cells" },
        h("thead", {}, h("tr", {}, table.columns.slice(0, shown).map((column) => h("th", { scope: "col" }, column.name)))),
        h("tbody", {}, table.cells.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))))),
      ),
    ),
    shown < table.columns.length && h("p", { class: "muted" }, `${table.columns.length - shown} more columns are not shown.`),
  );
}
