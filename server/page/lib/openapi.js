/**
 * What an OpenAPI document says, as it is shown: operations by heading, schemas as lines, an example, a call by curl. Pure.
 */

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];
const DEPTH_MAX = 6;

/** Follows a reference. */
export function resolved(document, value) {
  if (!value?.$ref) return value;
  return value.$ref.slice(2).split('/').reduce((found, key) => found?.[key.replaceAll('~1', '/').replaceAll('~0', '~')], document);
}

/**
 * Gives all operations, by the headings under which they stand.
 *
 * @returns {Map<string, {method: string, path: string, operation: Object}[]>}
 */
export function headings(document) {
  const found = new Map();
  for (const [path, item] of Object.entries(document.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const heading = item[method].tags?.[0] ?? '';
      if (!found.has(heading)) found.set(heading, []);
      found.get(heading).push({ method: method.toUpperCase(), path, operation: item[method] });
    }
  }
  return new Map([...found].sort(([one], [other]) => one.localeCompare(other)));
}

/** Tells whether an operation has all words of a search in it. */
export function fits({ method, path, operation }, search) {
  const text = `${method} ${path} ${operation.summary} ${operation['x-larder-scope'] ?? ''}`.toLowerCase();
  return search.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

/** Joins what a schema is put together of: references, and all of several. */
function joined(document, schema) {
  const own = resolved(document, schema);
  if (typeof own !== 'object' || own === null) return {};
  const parts = (own.allOf ?? []).map((part) => joined(document, part));
  const fields = [...parts, own].map((part) => part.properties ?? {});
  const needed = [...parts, own].flatMap((part) => part.required ?? []);
  return { ...Object.assign({}, ...parts), ...own, properties: Object.assign({}, ...fields), required: needed };
}

/** Says in a few words what a value is. */
export function kindOf(document, schema) {
  const own = resolved(document, schema);
  if (own === true || own === undefined || own === null) return 'anything';
  if (own.anyOf ?? own.oneOf) return [...new Set((own.anyOf ?? own.oneOf).map((one) => kindOf(document, one)))].join(' or ');
  if (own.const !== undefined) return JSON.stringify(own.const);
  if (own.enum) return own.enum.map((one) => JSON.stringify(one)).join(' or ');
  if (own.allOf) return 'object';
  const kinds = [own.type ?? 'anything'].flat();
  const words = kinds.map((kind) => {
    if (kind === 'array') return `list of ${kindOf(document, own.items)}`;
    if (kind === 'string' && own.format === 'date-time') return 'time';
    return kind;
  });
  return words.join(' or ');
}

/**
 * Gives the fields of a schema as lines, those of what is within them further in.
 *
 * @returns {{depth: number, name: string, kind: string, isNeeded: boolean, about: string}[]}
 */
export function lines(document, schema, depth = 0, seen = []) {
  if (depth >= DEPTH_MAX || seen.includes(schema?.$ref)) return [];
  const own = joined(document, schema);
  const known = schema?.$ref ? [...seen, schema.$ref] : seen;
  const within = [...(own.anyOf ?? []), ...(own.oneOf ?? []), own.items].filter((one) => typeof one === 'object');
  const fields = Object.entries(own.properties).flatMap(([name, value]) => {
    const found = resolved(document, value);
    const line = { depth, name, kind: kindOf(document, value), isNeeded: own.required.includes(name), about: value?.description ?? found?.description ?? '' };
    return [line, ...lines(document, value, depth + 1, known)];
  });
  return [...fields, ...within.flatMap((one) => lines(document, one, depth, known))];
}

/** Makes an example of what has to be sent: the fields without which it makes no sense, or all of a few. */
export function example(document, schema) {
  const own = joined(document, schema);
  if (own.enum) return own.enum[0];
  if (own.default !== undefined && own.default !== null) return own.default;
  const [kind] = [own.type ?? 'object'].flat();
  if (kind === 'object') {
    const names = Object.keys(own.properties).filter((name) => own.required.includes(name));
    return Object.fromEntries(names.map((name) => [name, example(document, own.properties[name])]));
  }
  return { array: [], boolean: false, integer: own.minimum ?? 1, number: 1, string: '...' }[kind] ?? null;
}

/** Words the call of an operation by curl. */
export function curl(document, { method, path, operation }, origin) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const needed = (operation.parameters ?? []).filter((one) => one.in === 'query' && one.required);
  const query = needed.map(({ name }) => `${name}=...`).join('&');
  const parts = ['curl'];
  const isOpen = operation.security?.length === 0;
  if (!isOpen) parts.push('-H "Authorization: Bearer $TOKEN"');
  const content = Object.entries(operation.requestBody?.content ?? {});
  for (const [kind, { schema }] of content) {
    if (kind === 'application/json') parts.push(`-d ${quoted(JSON.stringify(example(document, schema)))}`);
    else parts.push(...Object.keys(joined(document, schema).properties).map((name) => `--form ${name}=@FILE`));
  }
  const isUsual = method === (content.length > 0 ? 'POST' : 'GET');
  if (!isUsual) parts.push(`-X ${method}`);
  return [...parts, quoted(`${origin}${path}${query === '' ? '' : `?${query}`}`)].join(' ');
}

/** Puts what somebody entered into a path and its query. */
export function address({ path, operation }, values) {
  const entered = (operation.parameters ?? []).filter(({ name }) => (values[name] ?? '') !== '');
  const query = new URLSearchParams();
  let filled = path;
  for (const { name, in: place } of entered) {
    if (place === 'path') filled = filled.replaceAll(`{${name}}`, encodeURIComponent(values[name]));
    if (place === 'query') query.append(name, values[name]);
  }
  return `${filled}${query.size > 0 ? `?${query}` : ''}`;
}
