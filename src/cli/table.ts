/** Text tables with aligned columns. Pure. */

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

/** Lines, the titles first; columns that are empty in all rows are left out. */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  styleTitle: (title: string) => string = (title) => title,
): string {
  const shown = columns
    .map((column, index) => ({ ...column, index }))
    .filter(({ index }) => rows.length === 0 || rows.some((row) => (row[index] ?? '') !== ''));
  const widths = shown.map(({ title, index }) =>
    Math.max(title.length, ...rows.map((row) => (row[index] ?? '').length)),
  );
  const toLine = (cells: readonly string[]): string =>
    shown
      .map(({ align }, at) => {
        const cell = cells[at] ?? '';
        const width = widths[at] ?? 0;
        return align === 'right' ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd();
  const head = toLine(shown.map(({ title }) => title));
  const lines = rows.map((row) => toLine(shown.map(({ index }) => row[index] ?? '')));
  return [styleTitle(head), ...lines].join('\n');
}

/** `size    20 GiB`: labels in one column, what they say in the next. */
export function formatFacts(facts: readonly (readonly [string, string])[]): string {
  const width = Math.max(0, ...facts.map(([label]) => label.length));
  return facts.map(([label, text]) => `  ${label.padEnd(width)}  ${text}`.trimEnd()).join('\n');
}
