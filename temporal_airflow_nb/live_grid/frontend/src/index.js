/** The entry point of the widget: the module that anywidget loads. */

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
  /** Mount the widget beside the HTML of the cell. Without a key, the cell shows no HTML. */
  initialize({ model }) {
    return model.get("key") ? live(model, mountBesidePlaceholders) : undefined;
  },

  /** Mount the widget in its own output. */
  render({ model, el }) {
    return live(model, (link) => mountIn(link, el));
  },
};
