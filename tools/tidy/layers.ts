/**
 * Who may import whom. Arrows point down:
 *
 *   base < env < layout < store < vdisk < split < target, image, objects < control < main < cli
 *
 * 1. A folder of src imports its own files and lower layers, never a higher one, nor its equal.
 * 2. Siblings (two media, two protocols) do not know of each other.
 * 3. src never imports sim, test, bench or tools; only its tests use what test/ and sim/ lend them.
 * 4. What a program runs on below `control` is Node itself: no package. But `objects`, which knows
 *    nothing of the engine, signs requests with two (decision 0023).
 * 5. No barrels: `export ... from` stands in the package's entry alone.
 */
import { posix } from 'node:path';
import ts from 'typescript';
import { isTest, moduleNamedBy, type Rule, syntaxRule } from './source-file.js';

/** From the bottom up; equals side by side. */
const LAYERS: readonly (readonly string[])[] = [
  ['base'],
  ['env'],
  ['layout'],
  ['store'],
  ['vdisk'],
  ['split'],
  ['target', 'image', 'objects'],
  ['control'],
  ['main'],
  ['cli'],
];

const SIBLINGS: readonly (readonly string[])[] = [
  ['src/store/in-place/', 'src/store/object-log/'],
  ['src/target/nbd/', 'src/target/iscsi/'],
];

/** Layers of which some may know but a few. */
const ONLY: Readonly<Record<string, readonly string[]>> = { objects: ['base', 'env'] };

/** The packages that a layer below \`control\` runs on. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  objects: ['@smithy/signature-v4', '@aws-sdk/credential-provider-node'],
};

const LIBRARY = 'src/main/library.ts';

const inSource = (path: string): boolean => path.startsWith('src/');

/** What runs on Node alone ends below this rank. */
const CONTROL_RANK = LAYERS.findIndex((layers) => layers.includes('control'));

function layerOf(path: string): string {
  return /^src\/([^/]+)\//.exec(path)?.[1] ?? '';
}

/** -1 for what stands in no layer. */
function rankOf(path: string): number {
  return LAYERS.findIndex((layers) => layers.includes(layerOf(path)));
}

function checkImport(path: string, target: string): string | undefined {
  const root = target.split('/')[0] ?? '';
  if (isTest(path) && ['test', 'sim'].includes(root)) return undefined;
  if (root !== 'src') return `imports ${target}: src does not know of ${root}/`;
  const from = rankOf(path);
  const to = rankOf(target);
  if (from < 0) return `stands in no layer: the layers are ${LAYERS.flat().join(', ')}`;
  if (to < 0) return `imports ${target}, which stands in no layer`;
  const [layer, other] = [layerOf(path), layerOf(target)];
  if (to > from) return `imports ${target}: ${layer} is below ${other}`;
  if (to === from && layer !== other) {
    return `imports ${target}: ${layer} and ${other} do not know of each other`;
  }
  const few = ONLY[layer];
  if (few !== undefined && other !== layer && !few.includes(other)) {
    return `imports ${target}: ${layer} knows of ${few.join(', ')} alone`;
  }
  const mine = SIBLINGS.flat().find((folder) => path.startsWith(folder));
  const its = SIBLINGS.flat().find((folder) => target.startsWith(folder));
  const siblings = SIBLINGS.find((group) => mine !== undefined && group.includes(mine));
  if (its !== undefined && its !== mine && siblings?.includes(its) === true) {
    return `imports ${target}: ${mine} and ${its} do not know of each other`;
  }
  return undefined;
}

const layers = syntaxRule('layers', inSource, (piece, path) => {
  const specifier = moduleNamedBy(piece);
  if (specifier === undefined || !specifier.startsWith('.')) return undefined;
  return checkImport(path, posix.join(posix.dirname(path), specifier));
});

const packages = syntaxRule(
  'packages',
  (path) => inSource(path) && !isTest(path) && rankOf(path) < CONTROL_RANK,
  (piece, path) => {
    const specifier = moduleNamedBy(piece);
    if (specifier === undefined || /^(\.|node:)/.test(specifier)) return undefined;
    if (PACKAGES[layerOf(path)]?.includes(specifier) === true) return undefined;
    return `imports the package ${specifier}: below control/ there is none (or a decision record)`;
  },
);

const importEnding = syntaxRule(
  'import-ending',
  () => true,
  (piece) => {
    const specifier = moduleNamedBy(piece);
    if (specifier === undefined || !specifier.startsWith('.')) return undefined;
    return /\.(js|json)$/.test(specifier) ? undefined : `write './x.js', not '${specifier}'`;
  },
);

const barrels = syntaxRule(
  'barrels',
  (path) => path !== LIBRARY,
  (piece) =>
    ts.isExportDeclaration(piece) && piece.moduleSpecifier !== undefined
      ? `exports what another file owns: import that file (only ${LIBRARY} may)`
      : undefined,
);

export const layerRules: readonly Rule[] = [layers, packages, importEnding, barrels];
