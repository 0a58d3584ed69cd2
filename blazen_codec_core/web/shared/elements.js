/** Create an element: `element("p", {class: "soft"}, "text", child)`. Text is never parsed as markup. */
function element(tag, attributes = {}, ...children) {
  const created = ["svg", "g", "path", "line", "circle", "text", "title"].includes(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) created.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, v] of Object.entries(value)) created.style.setProperty(property, v);
    else if (typeof value === "boolean") created.toggleAttribute(name, value);
    else if (value !== null && value !== undefined) created.setAttribute(name, value);
  }
  created.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return created;
}

/** Colour of a version; the original has number 0. */
const colour = (number) => `var(--v${number === 0 ? 0 : ((number - 1) % 7) + 1})`;

const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

const formatNumber = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

function decodeBase64(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index += 1) bytes[index] = text.charCodeAt(index);
  return bytes;
}

/** Button that switches between the themes: light, dark and the system's. */
function themeButton() {
  const names = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  let now = "auto";
  const button = element("button", { type: "button" }, names.auto);
  button.addEventListener("click", () => {
    now = { auto: "light", light: "dark", dark: "auto" }[now];
    if (now === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = now;
    button.textContent = names[now];
  });
  return button;
}

/** Header of a page. */
const pageTop = (title, about) =>
  element(
    "div",
    { class: "top" },
    element("div", {}, element("h1", {}, title), element("p", { class: "soft" }, about)),
    themeButton(),
  );

/** Download bytes or text as a file. */
function download(name, content, type) {
  const link = element("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
