/**
 * What the house rules look at, and what they find.
 *
 * A rule is a pure function of files to faults, so that a test can show it a bad sample.
 */
import ts from 'typescript';

export interface SourceFile {
  /** From the root of the project, with forward slashes: 'src/base/units.ts'. */
  readonly path: string;
  /** Empty for what is not text. */
  readonly text: string;
}

export interface Fault {
  readonly path: string;
  /** 1-based; 0 for the file as a whole. */
  readonly line: number;
  /** Name of the rule, kebab-case. */
  readonly rule: string;
  /** What is wrong, and what to do instead. */
  readonly message: string;
}

export type Rule = (files: readonly SourceFile[]) => Fault[];

export function isTest(path: string): boolean {
  return /\.(test|fuzz)\.ts$/.test(path);
}

export function isTypeScript(path: string): boolean {
  return path.endsWith('.ts');
}

/** A rule that looks at one line at a time. */
export function lineRule(
  rule: string,
  applies: (path: string) => boolean,
  check: (line: string, path: string) => string | undefined,
): Rule {
  return (files) => {
    const faults: Fault[] = [];
    for (const { path, text } of files) {
      if (!applies(path)) continue;
      for (const [index, line] of text.split('\n').entries()) {
        const message = check(line, path);
        if (message !== undefined) faults.push({ path, line: index + 1, rule, message });
      }
    }
    return faults;
  };
}

const parsed = new WeakMap<SourceFile, ts.SourceFile>();

/** The file's syntax tree; parsed once. */
function parse(file: SourceFile): ts.SourceFile {
  let tree = parsed.get(file);
  if (tree === undefined) {
    tree = ts.createSourceFile(file.path, file.text, ts.ScriptTarget.ES2023, true);
    parsed.set(file, tree);
  }
  return tree;
}

/** A rule that looks at each piece of a TypeScript file's syntax. */
export function syntaxRule(
  rule: string,
  applies: (path: string) => boolean,
  check: (piece: ts.Node, path: string) => string | undefined,
): Rule {
  return (files) => {
    const faults: Fault[] = [];
    for (const file of files) {
      if (!isTypeScript(file.path) || !applies(file.path)) continue;
      const tree = parse(file);
      const visit = (piece: ts.Node): void => {
        const message = check(piece, file.path);
        if (message !== undefined) {
          const line = tree.getLineAndCharacterOfPosition(piece.getStart(tree)).line + 1;
          faults.push({ path: file.path, line, rule, message });
        }
        ts.forEachChild(piece, visit);
      };
      visit(tree);
    }
    return faults;
  };
}

/** The module that an import, an export or an `import()` names; undefined for all other syntax. */
export function moduleNamedBy(piece: ts.Node): string | undefined {
  const specifier =
    ts.isImportDeclaration(piece) || ts.isExportDeclaration(piece)
      ? piece.moduleSpecifier
      : ts.isCallExpression(piece) && piece.expression.kind === ts.SyntaxKind.ImportKeyword
        ? piece.arguments[0]
        : ts.isImportTypeNode(piece) && ts.isLiteralTypeNode(piece.argument)
          ? piece.argument.literal
          : undefined;
  return specifier !== undefined && ts.isStringLiteralLike(specifier) ? specifier.text : undefined;
}
