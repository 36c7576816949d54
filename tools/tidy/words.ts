/**
 * The words of the house: docs/GLOSSARY.md says what each thing is called here, so that one thing
 * has one name. The names that other systems give it are refused, but where a document compares.
 */
import { lineRule, type Rule } from './source-file.js';

interface WordRule {
  readonly words: RegExp;
  readonly instead: string;
  /** Paths that it holds for. */
  readonly where: RegExp;
}

const EVERYWHERE = /\.(ts|js|md|sh|py|json|yml)$/;
/** The words of operating systems have their place in env/. */
const CODE = /^(src\/(?!env\/)|sim\/).*\.(ts|md)$/;
/** Clusters are what qcow2 images are made of. */
const CODE_BUT_IMAGES = /^(src\/(?!env\/|image\/)|sim\/).*\.(ts|md)$/;

const WORDS: readonly WordRule[] = [
  { words: /\bvolumes?\b/i, instead: 'store or vdisk', where: EVERYWHERE },
  { words: /\bsuper ?blocks?\b/i, instead: 'fsinfo', where: EVERYWHERE },
  { words: /\bcheck ?point(s|ed|ing)?\b/i, instead: 'consistency point', where: EVERYWHERE },
  { words: /\bjournal(s|ed|l?ing)?\b/i, instead: 'log', where: EVERYWHERE },
  { words: /\bflatten(s|ed|ing)?\b/i, instead: 'split', where: EVERYWHERE },
  { words: /\bnull blocks?\b/i, instead: 'zero block or hole', where: EVERYWHERE },
  { words: /\b(parents?|child(ren)?)\b/i, instead: 'backing store and clone', where: CODE },
  { words: /\bpages?\b/i, instead: 'block', where: CODE },
  { words: /\bclusters?\b/i, instead: 'block', where: CODE_BUT_IMAGES },
  { words: /\bnodes?\b/i, instead: 'block (indirect block)', where: CODE },
];

/** Phrases in which a refused word is the right one. */
const PHRASES: readonly { readonly phrase: RegExp; readonly reason: string }[] = [
  { phrase: /\bnode:[a-z_/]+/g, reason: 'modules of Node.js' },
  { phrase: /\bNode(\.js|JS)?\b/g, reason: 'the platform' },
  { phrase: /\bnode_modules\b/g, reason: 'a folder of npm' },
  { phrase: /@aws-sdk\/credential-provider-node\b/g, reason: 'a package' },
  { phrase: /\bchild[ _-]?process(es)?\b/gi, reason: 'a process that another one started' },
  { phrase: /\bhttps:\/\/[^\s)]+/g, reason: 'addresses of others' },
  { phrase: /\b(rbd|deep-)\s?flatten\b/g, reason: 'what it is called in Ceph' },
  { phrase: /`volume clone split`/g, reason: 'a command of ONTAP' },
  { phrase: /\bpage cache\b/gi, reason: 'the one of Linux' },
];

/** Files in which the other words must stand. */
const FILES: readonly { readonly path: RegExp; readonly reason: string }[] = [
  { path: /^docs\/GLOSSARY\.md$/, reason: 'lists the words that are not used here' },
  { path: /^docs\/decisions\//, reason: 'compares with what other systems do' },
  { path: /^docs\/COMPARISON\.md$/, reason: 'compares with what other systems do' },
  { path: /^tools\/tidy\/words\.ts$/, reason: 'is this list' },
  { path: /^tools\/tidy\.test\.ts$/, reason: 'shows the rule its bad samples' },
  { path: /^package-lock\.json$/, reason: 'is npm\u2019s' },
];

/** `checkpointCount`, `CHECK_POINT` and `check-point` are words as well. */
function toWords(line: string): string {
  return line.replaceAll(/([a-z0-9])([A-Z])/g, '$1 $2').replaceAll(/[_-]/g, ' ');
}

const words = lineRule(
  'words',
  (path) => EVERYWHERE.test(path) && !FILES.some((file) => file.path.test(path)),
  (line, path) => {
    const rest = PHRASES.reduce((text, { phrase }) => text.replaceAll(phrase, ''), line);
    const spaced = toWords(rest);
    for (const { words: refused, instead, where } of WORDS) {
      if (!where.test(path)) continue;
      const found = refused.exec(spaced);
      if (found !== null) return `'${found[0]}': here it is called ${instead}`;
    }
    return undefined;
  },
);

export const wordRules: readonly Rule[] = [words];
