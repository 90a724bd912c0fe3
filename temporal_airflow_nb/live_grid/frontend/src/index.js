/** The live widget of a run, for whatever speaks anywidget. */

import { Link } from "./connection.js";
import { mountBesidePlaceholders, mountIn } from "./mount.js";

function live(model, mount) {
  const link = new Link(model);
  const unmount = mount(link);
  return () => {
    unmount();
    link.close();
  };
}

export default {
  /** Stand beside the HTML that the cell shows; without a key there is none. */
  initialize({ model }) {
    return model.get("key") ? live(model, mountBesidePlaceholders) : undefined;
  },

  /** Stand in an output of the widget's own. */
  render({ model, el }) {
    return live(model, (link) => mountIn(link, el));
  },
};
