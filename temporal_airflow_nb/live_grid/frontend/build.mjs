/** Builds ../static/widget.js, and the licences of the bundled packages. */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "static");
const bundled = ["preact", "htm", "@dagrejs/dagre", "@dagrejs/graphlib"];

/** Hash of the sources; tests/unit/live_grid/test_widget_build.py computes the same. */
function fingerprint() {
  const names = ["build.mjs", "package.json", ...readdirSync(join(here, "src")).map((name) => `src/${name}`)].sort();
  const hash = createHash("sha256");
  for (const name of names) hash.update(`${name}\n`).update(readFileSync(join(here, name)));
  return hash.digest("hex").slice(0, 16);
}

/** The code of the layout as one self-contained function: the page calls it, and a worker gets its source. */
const layoutFactory = {
  name: "layout-factory",
  setup(builder) {
    builder.onResolve({ filter: /^layout-factory$/ }, () => ({ path: "layout-factory", namespace: "layout" }));
    builder.onLoad({ filter: /.*/, namespace: "layout" }, async () => {
      const { outputFiles } = await build({
        entryPoints: [join(here, "src", "layout.js")],
        bundle: true,
        minify: true,
        write: false,
        format: "iife",
        globalName: "layout",
        target: "es2022",
        legalComments: "none",
      });
      return { contents: `export function factory() { ${outputFiles[0].text}; return layout; }`, loader: "js" };
    });
  },
};

const minifiedStyle = {
  name: "minified-style",
  setup(builder) {
    builder.onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const loader = { ".css": "css" };
      const { outputFiles } = await build({ entryPoints: [path], minify: true, write: false, loader, charset: "utf8" });
      return { contents: outputFiles[0].text, loader: "text" };
    });
  },
};

/** Removes indentation: in htm's templates it has no meaning, but takes space. */
const minifiedTemplates = {
  name: "minified-templates",
  setup(builder) {
    builder.onLoad({ filter: /frontend[\\/]src[\\/]\w+\.js$/ }, ({ path }) => ({
      contents: readFileSync(path, "utf8").replace(/\n\s+/g, "\n"),
      loader: "js",
    }));
  },
};

await build({
  entryPoints: [join(here, "src", "index.js")],
  outfile: join(target, "widget.js"),
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  loader: { ".css": "text" },
  legalComments: "none",
  plugins: [layoutFactory, minifiedStyle, minifiedTemplates],
  banner: {
    js: `/*! temporal_airflow_nb, Apache-2.0; with preact, htm, dagre, graphlib: see LICENSES.txt. Sources ${fingerprint()} */`,
  },
});

const licences = bundled.map((name) => {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  return `${name} ${version} (${license})\n\n${readFileSync(join(folder, "LICENSE"), "utf8").trim()}\n`;
});
writeFileSync(join(target, "LICENSES.txt"), licences.join(`\n${"-".repeat(80)}\n\n`));
