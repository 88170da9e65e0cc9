/**
 * Makes elements. Data only ever becomes text nodes and attributes, so nothing that a file is called can become markup.
 */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * Makes an element.
 *
 * An attribute whose value is a function listens to the event of that name; `true` is an attribute without a value; null,
 * undefined and false leave it out. `value`, `checked`, `disabled` and their like are set as properties.
 *
 * @param {string} tag
 * @param {Object<string, *>} attributes
 * @param {...(Node|string|number|null|undefined|false|Array)} children
 */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Makes an element of an SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  append(element, children);
  return element;
}

function set(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (typeof value === 'function') element.addEventListener(name, value);
  else if (['value', 'checked', 'disabled', 'indeterminate'].includes(name)) element[name] = value;
  else element.setAttribute(name, value === true ? '' : String(value));
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** Puts other children into an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

let serial = 0;

/** Gives an id that no other element has. */
export function uniqueId(stem) {
  serial += 1;
  return `${stem}-${serial}`;
}

/** Has a screen reader say something that is otherwise only seen. */
export function announce(text) {
  const region = document.getElementById('announcer');
  if (region) region.textContent = text;
}
