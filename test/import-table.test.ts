/** The import table of the design, executed: what is not allowed here is denied. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '..');

/** What the hosts of a window share: one set of calls, one current sweep. */
const windowHost = [
  'src-main/hosts/compose.ts',
  'src-main/hosts/app-calls.ts',
  'src-main/hosts/run-hub.ts',
  'src-main/hosts/window-host.ts',
  'src-main/hosts/folders.ts',
  'src-main/hosts/assets.ts',
  'src-main/hosts/headers.ts',
  'src-main/contract',
  'node:',
];
/** One component library and its icons. */
const components = ['react', '@mantine/core', '@mantine/hooks', '@tabler/icons-react'];

/**
 * Room → what it may import besides itself: rooms or single files (from the root), `node:`, packages by name.
 * A room is a folder; the longest name that fits counts. `hosts/*` are the files that stand directly in that folder.
 */
const table: Record<string, readonly string[]> = {
  'src-main/contract': ['zod'],
  'src-main/engine': ['src-main/contract', 'zod'],
  'src-main/models': ['src-main/contract', 'src-main/engine/ports.ts', 'node:', 'zod'],
  // The report paints the series that the window paints, without its component libraries.
  'src-main/sessions': [
    'src-main/contract',
    'src-main/engine/ports.ts',
    'src-renderer/series',
    'node:',
    'zod',
    'hyparquet-writer',
  ],
  'src-main/fleet': ['src-main/contract', 'src-main/engine', 'node:', 'zod', 'bullmq', 'ioredis'],
  // Over ssh it speaks in the frames of the worker's pipe.
  'src-main/remote': [
    'src-main/contract',
    'src-main/engine/ports.ts',
    'src-main/worker/frames.ts',
    'src-main/worker/spawn.ts',
    'node:',
    'zod',
  ],
  'src-main/worker': ['src-main/contract', 'src-main/engine/ports.ts', 'node:', 'zod'],
  'src-main/hosts/*': [
    'src-main/contract',
    'src-main/engine',
    'src-main/models',
    'src-main/sessions',
    'src-main/worker',
    'src-main/fleet',
    'src-main/remote',
    'node:',
    'zod',
  ],
  'src-main/hosts/cli': [
    'src-main/hosts/compose.ts',
    'src-main/hosts/web/serve.ts',
    'src-main/contract',
    'node:',
    'commander',
  ],
  'src-main/hosts/web': [...windowHost, 'hono', '@hono/node-server'],
  'src-main/hosts/electron': [
    ...windowHost,
    'src-main/sessions/storage.ts',
    'src-main/worker/spawn.ts',
    'electron',
    'zod',
  ],
  'src-main/*': ['src-main/hosts/compose.ts', 'src-main/hosts/library.ts', 'src-main/contract'],
  // A fresh clone has no packages; who makes a package of the app has.
  'src-main/setup': ['node:', '@electron/fuses'],
  'src-renderer/client': ['src-main/contract'],
  'src-renderer/store': ['src-main/contract', 'src-renderer/client', 'zustand'],
  'src-renderer/series': ['src-main/contract'],
  'src-renderer/charts': ['src-main/contract', 'src-renderer/series', 'recharts', ...components],
  'src-renderer/panels': [
    'src-main/contract',
    'src-renderer/store',
    'src-renderer/series',
    'src-renderer/charts',
    'zustand',
    '@tanstack/react-virtual',
    ...components,
  ],
  'src-renderer/shell': [
    'src-main/contract',
    'src-renderer/store',
    'src-renderer/series',
    'src-renderer/charts',
    'src-renderer/panels',
    'zustand',
    ...components,
  ],
  'src-renderer/*': [
    'src-renderer/shell',
    'src-renderer/panels',
    'src-renderer/store',
    'src-renderer/client',
    'react-dom',
    'vite',
    '@vitejs/plugin-react',
    ...components,
  ],
};

const sources = ['src-main', 'src-renderer']
  .filter((folder) => existsSync(join(root, folder)))
  .flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
  )
  .filter((path) => /\.(ts|tsx|mts|mjs)$/.test(path));

function roomOf(path: string): string | undefined {
  const folder = dirname(path);
  const fits = (room: string): boolean =>
    room.endsWith('/*') ? folder === room.slice(0, -2) : folder === room || folder.startsWith(`${room}/`);
  return Object.keys(table)
    .filter(fits)
    .sort((a, b) => b.length - a.length)[0];
}

function importsOf(text: string): string[] {
  const code = text.replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
  const pattern = /\b(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]|\bimport\s*\(?\s*['"]([^'"]+)['"]/g;
  return [...code.matchAll(pattern)].map((match) => match[1] ?? match[2]);
}

/** The rule an import breaks, in words; undefined if it breaks none. */
function denied(path: string, specifier: string): string | undefined {
  const room = roomOf(path);
  if (room === undefined) return `${path} stands in no room of the table`;
  const isRelative = specifier.startsWith('.');
  const target = isRelative ? relative(root, join(root, dirname(path), specifier)) : specifier;
  if (isRelative && roomOf(target) === room) return undefined;
  const allows = (entry: string): boolean => {
    if (isRelative) return target === entry || (!entry.endsWith('.ts') && target.startsWith(`${entry}/`));
    return entry === 'node:' ? specifier.startsWith('node:') : specifier === entry || specifier.startsWith(`${entry}/`);
  };
  return table[room].some(allows) ? undefined : `${path} (${room}) must not import ${specifier}`;
}

test('every import is one that the table allows', () => {
  expect(sources.length).toBeGreaterThan(20);
  const broken = sources.flatMap((path) => {
    const text = readFileSync(join(root, path), 'utf8');
    return importsOf(text).flatMap((specifier) => denied(path, specifier) ?? []);
  });
  expect(broken).toEqual([]);
});

test.each([
  ['src-main/contract/api.ts', 'node:fs'],
  ['src-main/contract/api.ts', '../engine/ports.ts'],
  ['src-main/engine/plan.ts', 'node:os'],
  ['src-main/engine/plan.ts', '../worker/supervisor.ts'],
  ['src-main/sessions/export.ts', '../engine/plan.ts'],
  ['src-main/hosts/cli/sweep.ts', '../../engine/plan.ts'],
  ['src-main/hosts/cli/sweep.ts', '../attend.ts'],
  ['src-main/setup/setup.mjs', 'zod'],
  ['src-renderer/store/run.ts', 'react'],
  ['src-renderer/panels/table.tsx', 'recharts'],
  ['src-main/attic/old.ts', 'node:fs'],
])('the check has teeth: %s must not import %s', (path, specifier) => {
  expect(denied(path, specifier)).toBeDefined();
});

test('imports are found in whatever form they are written', () => {
  const code = `import a from 'one';\nimport {\n  type b,\n} from "two";\nexport * from './three.ts';\nawait import('four');\nimport 'five'; // import 'no'\n/* import x from 'no' */`;
  expect(importsOf(code)).toEqual(['one', 'two', './three.ts', 'four', 'five', 'no']);
});

test('the contract needs neither Node nor a browser', () => {
  const folder = mkdtempSync(join(root, 'node_modules/.contract-'));
  try {
    const project = {
      extends: '../../tsconfig.json',
      compilerOptions: { types: [], lib: ['es2023'], noEmit: true, incremental: false, rootDir: '../..' },
      include: ['../../src-main/contract/*.ts'],
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(project));
    execFileSync(join(root, 'node_modules/.bin/tsc'), ['--project', folder], { encoding: 'utf8', stdio: 'pipe' });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('the kernels need neither Node nor the addon', () => {
  const files = readdirSync(join(root, 'kernels'), { recursive: true, encoding: 'utf8' }).filter((name) =>
    /\.(h|cpp|cu|cuh)$/.test(name),
  );
  const includes = files.flatMap((name) =>
    [...readFileSync(join(root, 'kernels', name), 'utf8').matchAll(/^\s*#\s*include\s*[<"]([^>"]+)/gm)].map(
      (match) => `${name}: ${match[1]}`,
    ),
  );
  expect(includes.filter((include) => /napi|node_api|v8\.h|native\//.test(include))).toEqual([]);
});
