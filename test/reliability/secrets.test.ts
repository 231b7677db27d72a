/** S4: where the secrets of the web host are, and where they are not. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';
import { reached } from './effort.ts';
import { fakeWorker } from './sweep-of-trouble.ts';
import { killNow, startWeb, WebClient } from './web-client.ts';

const compared = vi.hoisted((): number[][] => []);
vi.mock('node:crypto', async (original) => {
  const real = await original<typeof import('node:crypto')>();
  const timingSafeEqual: typeof real.timingSafeEqual = (a, b) => {
    compared.push([a.byteLength, b.byteLength]);
    return real.timingSafeEqual(a, b);
  };
  return { ...real, timingSafeEqual };
});

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-secrets-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Arguments and environment of a process and all that it started. */
function processTexts(pid: number): string[] {
  const children = readdirSync('/proc').filter((name) => {
    try {
      return /^\d+$/.test(name) && new RegExp(`\\) \\w ${pid} `).test(readFileSync(`/proc/${name}/stat`, 'utf8'));
    } catch {
      return false;
    }
  });
  const texts = (each: string): string[] =>
    ['cmdline', 'environ'].map((file) => readFileSync(`/proc/${each}/${file}`, 'latin1'));
  return [
    ...texts(String(pid)),
    ...children.flatMap((each) => {
      try {
        return texts(each);
      } catch {
        return []; // it ended while we looked
      }
    }),
  ];
}

test('S4: the token is in no argument, environment, log, answer or file; a ticket is on stdout only, until it is used', async (context) => {
  const environment = { FASTMQA_HOME: join(folder, 'home'), TMPDIR: folder, HOME: folder, FASTMQA_WORKER: fakeWorker };
  const { child, link, output } = await startWeb(environment);
  const answers: string[] = [];
  let events = '';
  try {
    const client = await WebClient.enter(link);
    void client.listen(
      (batch) => {
        events += JSON.stringify(batch);
      },
      () => undefined,
    );
    const sweep = {
      name: 's',
      axes: { level: ['baseline'], hiddenDim: [64], heads: [2], seqLen: [16, 32] },
      measuring: { minSeconds: 0, minSamples: 5 },
    };
    const { id } = await client.call('startRun', { sweep });
    await expect.poll(async () => (await client.call('snapshot', {})).status).toBe('ended');
    for (const name of ['snapshot', 'library', 'levels', 'devices'] as const)
      answers.push(JSON.stringify(await client.call(name, {})));
    for (const format of ['fmqa', 'json', 'html'] as const) {
      const { base64 } = await client.call('exportSession', { id, format });
      answers.push(Buffer.from(base64, 'base64').toString('latin1'));
    }
    const page = await fetch(`${client.origin}/`, { headers: { Cookie: client.cookie } });
    expect(page.headers.get('referrer-policy')).toBe('no-referrer');
    expect(page.url).not.toContain('ticket');
    answers.push(await page.text(), JSON.stringify([...page.headers]));
    expect((await fetch(link)).status).toBe(403);

    const token = client.cookie.split('=')[1];
    const spent = new URL(link).searchParams.get('ticket') as string;
    expect(Buffer.from(token, 'base64url').length * 8).toBeGreaterThanOrEqual(192);
    expect(Buffer.from(spent, 'base64url').length * 8).toBeGreaterThanOrEqual(192);
    await expect.poll(() => output().stdout.match(/ticket=/g)).toHaveLength(2);
    const { stdout, stderr } = output();
    const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const texts = files.map(({ parentPath, name }) => readFileSync(join(parentPath, name), 'latin1'));
    const tickets = stdout.match(/ticket=[\w-]+/g)?.map((text) => text.slice(7)) ?? [];
    expect(tickets).toHaveLength(2);
    const elsewhere = [...processTexts(child.pid as number), ...texts, ...answers, events, stderr];
    for (const text of elsewhere) for (const secret of [token, ...tickets]) expect(text.includes(secret)).toBe(false);
    expect(stdout).not.toContain(token);
    expect(files.length).toBeGreaterThan(0);
    client.close();
    reached(
      context,
      `S4  token and tickets looked for in ${elsewhere.length} files, answers, logs, arguments and environments: 0 found`,
    );
  } finally {
    await killNow(child);
  }
});

test('S4: secrets are compared in constant time, whatever their length', async () => {
  const { Keys } = await import('../../src-main/hosts/web/keys.ts');
  const keys = new Keys();
  for (const guess of ['', 'x', 'y'.repeat(43), 'z'.repeat(5000)]) {
    expect(keys.admits(`${keys.cookieName}=${guess}`)).toBe(false);
    expect(keys.redeem(guess)).toBeUndefined();
  }
  expect(compared).toEqual(Array.from({ length: 8 }, () => [32, 32]));
});
