/** The near end of agents: which servers the user has, what they offer, and a sweep that runs on one. */
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { RemoteOptions, SweepRun } from '../contract/api.ts';
import { InputError } from '../contract/input-error.ts';
import type { AgentInfo } from '../contract/places.ts';
import type { Environment } from '../contract/session.ts';
import { versionOf } from '../fleet/queue.ts';
import { type AgentAddress, checkHost, type Line, LineLost, openLine } from '../remote/line.ts';
import type { Hello } from '../remote/protocol.ts';
import { type RemotePlan, startRemoteRun } from '../remote/run.ts';
import { readWhole, writeWhole } from '../sessions/storage.ts';
import { kernelsFingerprint } from './environment.ts';
import { dataFolder } from './folders.ts';

const mostAgents = 100;
const bookSchema = z.array(z.strictObject({ host: z.string(), command: z.string() })).max(mostAgents);
type Book = z.infer<typeof bookSchema>;

/** Servers that were reached before, and how FastMQA is called there. */
const bookPath = (): string => join(dataFolder(), 'agents.json');

async function readBook(): Promise<Book> {
  if (!existsSync(bookPath())) return [];
  const bytes = await readWhole(bookPath());
  try {
    return bookSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
  } catch {
    throw new InputError(`${bookPath()} does not hold agents: move it away to begin anew`);
  }
}

async function changeBook(edit: (book: Book) => Book): Promise<void> {
  const [before, after] = [await readBook(), edit(await readBook())];
  if (JSON.stringify(before) === JSON.stringify(after)) return;
  await mkdir(dirname(bookPath()), { recursive: true });
  await writeWhole(bookPath(), Buffer.from(`${JSON.stringify(after, null, 2)}\n`));
}

/** As it is called where it was installed with npm. */
const usualCommand = 'fastmqa';

async function addressOf(host: string, command?: string): Promise<AgentAddress> {
  checkHost(host);
  const known = (await readBook()).find((agent) => agent.host === host);
  const { FASTMQA_SSH_CONFIG: sshConfig } = process.env;
  return { host, command: command ?? known?.command ?? usualCommand, ...(sshConfig ? { sshConfig } : {}) };
}

/** @throws InputError where there is no agent to be had */
async function reach(address: AgentAddress): Promise<{ line: Line; hello: Hello }> {
  const { host, command } = address;
  try {
    const line = await openLine(address);
    const hello = await line.ask('hello', {});
    await changeBook((book) => [...book.filter((agent) => agent.host !== host), { host, command }].sort(byHost));
    return { line, hello };
  } catch (error) {
    if (error instanceof LineLost) throw new InputError(`no agent can be reached at ${host}: ${error.message}`);
    throw error;
  }
}

const byHost = (a: { host: string }, b: { host: string }): number => a.host.localeCompare(b.host);

/** @param hosts those to ask; none: all that were reached before */
export async function listAgents(hosts: readonly string[], command?: string): Promise<readonly AgentInfo[]> {
  const asked = hosts.length > 0 ? hosts : (await readBook()).map(({ host }) => host);
  const addresses = await Promise.all(asked.map((host) => addressOf(host, command)));
  const [ours, agents] = [versionOf(kernelsFingerprint()), [] as AgentInfo[]];
  await Promise.all(
    addresses.map(async (address) => {
      const { host } = address;
      try {
        const { line, hello } = await reach(address);
        line.close();
        const { version, devices, runs } = hello;
        agents.push({ host, reachable: true, machine: hello.host, fits: version === ours, devices, runs });
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        agents.push({ host, reachable: false, reason: error.message, devices: [], runs: [] });
      }
    }),
  );
  return agents.sort(byHost);
}

export const knownAgents = async (): Promise<readonly string[]> => (await readBook()).map(({ host }) => host);

export const forgetAgent = (host: string): Promise<void> =>
  changeBook((book) => book.filter((agent) => agent.host !== host));

/** Connected to an agent that can measure this: only then is there something to record. */
export async function joinAgent(
  { host, command, onNotice = () => undefined }: RemoteOptions,
  plan: readonly { readonly config: { readonly backend: string } }[],
  isResumed: boolean,
): Promise<{
  readonly environment: Environment;
  start(what: Omit<RemotePlan, 'host' | 'line' | 'reconnect' | 'onNotice' | 'environment'>): SweepRun;
  leave(): void;
}> {
  const address = await addressOf(host, command);
  const { line, hello } = await reach(address);
  try {
    const ours = versionOf(kernelsFingerprint());
    if (hello.version !== ours)
      throw new InputError(
        `refused: the agent of ${host} has other kernels (${hello.version}, ours: ${ours}); one from before an update ends after ten idle minutes`,
      );
    for (const { config } of plan) {
      const device = hello.devices.find(({ backend }) => backend === config.backend);
      if (!device?.usable)
        throw new InputError(`${host} cannot use ${config.backend}: ${device?.reason ?? 'it has no such device'}`);
    }
    const other = hello.runs.find(({ status }) => status !== 'ended' && status !== 'idle');
    if (other && !isResumed) throw new InputError(`${host} measures another sweep now: ${other.name}`);
    const backends = [...new Set(plan.map(({ config }) => config.backend))];
    const environment = await line.ask('environment', { backends }).catch((error: unknown) => {
      throw error instanceof LineLost ? new InputError(`the connection to ${host} was lost: ${error.message}`) : error;
    });
    return {
      environment,
      start: (what) =>
        startRemoteRun({ ...what, host, line, environment, onNotice, reconnect: () => openLine(address) }),
      leave: () => line.close(),
    };
  } catch (error) {
    line.close();
    throw error;
  }
}
