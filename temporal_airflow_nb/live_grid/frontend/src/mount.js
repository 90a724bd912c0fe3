/** Mounts the widget in the page, in a shadow root beside each placeholder, and removes it when it isn't needed. */

import { render } from "preact";
import { html } from "htm/preact";
import { App } from "./app.js";
import { STEP } from "./store.js";
import style from "./style.css";

const PLACEHOLDER = "data-ta-live";
const MOUNTED = "data-ta-mounted";
/** Milliseconds until a root is removed after its cell left the document: notebooks detach cells that are scrolled away. */
const DETACHED_TIMEOUT = 10_000;
const HIDE = `
.jp-OutputArea-child[${MOUNTED}] > .jp-OutputArea-output { display: none !important; }
[${MOUNTED}] [${PLACEHOLDER}] { display: none !important; }
[${MOUNTED}] > ta-live { display: block; width: 100%; min-width: 0; }
.jp-OutputArea-child[${MOUNTED}] > ta-live { display: table-cell; vertical-align: top; }`;

/** The widget's element. It follows the size, the theme and the visibility that the page gives it. */
class Root {
  /**
   * @param {import("./connection.js").Link} link
   * @param {HTMLElement} parent
   */
  constructor(link, parent) {
    this.link = link;
    this.host = document.createElement("ta-live");
    this.releaseKeys = captureKeys(this.host);
    const shadow = this.host.attachShadow({ mode: "open" });
    shadow.innerHTML = "<style></style><style></style><div></div>";
    [this.style, this.colors, this.place] = shadow.children;
    this.style.textContent = style;
    this.visible = true;
    this.width = 0;
    this.observers = [
      new IntersectionObserver((entries) => this.#setVisible(entries.at(-1).isIntersecting), { rootMargin: "200px" }),
      new ResizeObserver(([entry]) => this.#resize(entry.contentRect.width)),
    ];
    parent.append(this.host);
    for (const observer of this.observers) observer.observe(this.host);
    this.unsubscribe = link.subscribe(() => this.schedule());
    this.unsubscribeTheme = onTheme(() => this.schedule());
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const isStopped = () => link.store.final || !link.store.follows || !link.live;
    this.clock = setInterval(() => isStopped() || this.schedule(), still ? 1000 : STEP);
    this.width = parent.clientWidth;
    this.#render();
    link.mounted();
  }

  /** Draw once in the next frame, even if several changes come before it. */
  schedule() {
    if (this.frame || !this.visible) {
      this.stale = true;
      return;
    }
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.#render();
    });
  }

  remove() {
    cancelAnimationFrame(this.frame);
    clearInterval(this.clock);
    this.unsubscribe();
    this.unsubscribeTheme();
    this.releaseKeys();
    for (const observer of this.observers) observer.disconnect();
    render(null, this.place);
    this.host.remove();
  }

  #setVisible(visible) {
    this.visible = visible;
    if (visible && this.stale) this.schedule();
  }

  #resize(width) {
    if (Math.abs(width - this.width) < 1 || width === 0) return;
    this.width = width;
    this.schedule();
  }

  #render() {
    this.stale = false;
    const { styles } = this.link.store;
    if (styles !== this.styles) {
      this.styles = styles;
      this.colors.textContent = styles.css();
    }
    render(html`<${App} link=${this.link} width=${this.width} dark=${isDark(this.host)} />`, this.place);
  }
}

/** Keep keys typed here from the page's shortcuts, except those such as Ctrl+S. Returns a function that ends it. */
function captureKeys(host) {
  // JupyterLab handles keys before they arrive here, unless the focused element has this attribute.
  const suppress = () => host.setAttribute("data-lm-suppress-shortcuts", "true");
  function before(event) {
    const [target] = event.composedPath();
    if (event.composedPath().includes(host) && concernsPage(event, target))
      host.removeAttribute("data-lm-suppress-shortcuts");
    else suppress();
  }
  suppress();
  window.addEventListener("keydown", before, { capture: true });
  for (const type of ["keydown", "keyup", "keypress"])
    host.addEventListener(type, (event) => concernsPage(event, event.composedPath()[0]) || event.stopPropagation());
  return () => window.removeEventListener("keydown", before, { capture: true });
}

function concernsPage(event, target) {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName);
  return (event.ctrlKey || event.metaKey) && (!typing || event.key.toLowerCase() === "s");
}

function isDark(host) {
  const themed = (host.closest("[data-jp-theme-light]") ?? document.body).getAttribute("data-jp-theme-light");
  if (themed) return themed === "false";
  const page = document.documentElement;
  const names = `${document.body.className} ${page.className} ${page.dataset.theme ?? ""} ${page.getAttribute("theme") ?? ""}`;
  const is = (...themes) => themes.some((theme) => names.split(" ").includes(theme));
  // VS Code gives a light high-contrast theme both high-contrast class names, so the light ones are tested first.
  if (is("vscode-light", "vscode-high-contrast-light", "light")) return false;
  if (is("vscode-dark", "vscode-high-contrast", "dark")) return true;
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function onTheme(listener) {
  const observer = new MutationObserver(listener);
  const options = { attributes: true, attributeFilter: ["class", "theme", "data-theme", "data-jp-theme-light"] };
  for (const element of [document.body, document.documentElement]) observer.observe(element, options);
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", listener);
  return () => {
    observer.disconnect();
    media.removeEventListener("change", listener);
  };
}

/** Mount the widget in its own element. Returns a function that unmounts it. */
export function mountIn(link, element) {
  const root = new Root(link, element);
  return () => root.remove();
}

/** Mount the widget beside every placeholder with its key while the kernel lives. Returns a function that unmounts it. */
export function mountBesidePlaceholders(link) {
  /** @type {Map<HTMLElement, {root: Root, gone: number}>} */
  const mounted = new Map();
  let state = "";

  function update() {
    const key = link.model.get("key");
    const wanted = new Set();
    if (key && link.live && link.store.loaded)
      for (const place of document.querySelectorAll(`[${PLACEHOLDER}="${CSS.escape(key)}"]`))
        wanted.add(place.closest(".jp-OutputArea-child") ?? place.parentElement);
    for (const parent of wanted) {
      const there = mounted.get(parent);
      if (there?.root.host.parentElement === parent) {
        clearTimeout(there.gone);
        there.gone = 0;
        continue;
      }
      there?.root.remove();
      parent.setAttribute(MOUNTED, "");
      mounted.set(parent, { root: new Root(link, parent), gone: 0 });
    }
    for (const [parent, there] of mounted) {
      if (wanted.has(parent)) continue;
      if (!link.live || !key) unmount(parent);
      else there.gone ||= setTimeout(() => unmount(parent), parent.isConnected ? 500 : DETACHED_TIMEOUT);
    }
  }

  function unmount(parent) {
    const { root, gone } = mounted.get(parent);
    clearTimeout(gone);
    root.remove();
    parent.removeAttribute(MOUNTED);
    mounted.delete(parent);
  }

  hideStaticHtml();
  const watch = new MutationObserver((records) => {
    if (records.some(({ addedNodes, removedNodes }) => [...addedNodes, ...removedNodes].some(containsPlaceholder))) update();
  });
  watch.observe(document.body, { childList: true, subtree: true });
  const unsubscribe = link.subscribe(() => {
    const now = `${link.live}${link.store.loaded}`;
    if (now !== state) update();
    state = now;
  });
  link.model.on("change:key", update);
  update();
  return () => {
    watch.disconnect();
    unsubscribe();
    link.model.off("change:key", update);
    for (const parent of [...mounted.keys()]) unmount(parent);
  };
}

function containsPlaceholder(node) {
  return node instanceof Element && (node.hasAttribute(PLACEHOLDER) || node.querySelector(`[${PLACEHOLDER}]`) !== null);
}

function hideStaticHtml() {
  const id = "ta-live-style";
  if (document.getElementById(id)) return;
  const sheet = document.createElement("style");
  sheet.id = id;
  sheet.textContent = HIDE;
  document.head.append(sheet);
}
