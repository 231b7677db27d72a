#!/usr/bin/env node
/** The command line: one profiler, one command, one exit code. Bad input is one sentence, never a stack trace. */
import { Command, CommanderError, Help } from 'commander';
import { InputError } from '../../contract/input-error.ts';
import { BackendFailure, createProfiler, fastmqaVersion } from '../compose.ts';
import { addAgent } from './agent.ts';
import { addAgents } from './agents.ts';
import { addAttend } from './attend.ts';
import { addBench } from './bench.ts';
import { addCompare } from './compare.ts';
import { addDevices } from './devices.ts';
import { type ExitCode, exitCodes } from './exit.ts';
import { addExport } from './export.ts';
import { addFleet } from './fleet.ts';
import { addLevels } from './levels.ts';
import { say } from './output.ts';
import { addPlan } from './plan.ts';
import { clearLine } from './progress.ts';
import { addRecommend } from './recommend.ts';
import { addServe } from './serve.ts';
import type { Session } from './session.ts';
import { addSpeculate } from './speculate.ts';
import { addSweep } from './sweep.ts';
import { addWorker } from './worker.ts';

function createProgram(session: Session): Command {
  const program = new Command('fastmqa')
    .description('Profiler for attention kernels and their key/value cache: memory, throughput and error, measured.')
    .version(fastmqaVersion)
    .configureHelp({
      optionDescription: (option) => new Help().optionDescription(option) + (option.mandatory ? ' (required)' : ''),
    })
    .exitOverride()
    .configureOutput({ outputError: () => undefined });
  for (const add of [
    addLevels,
    addDevices,
    addSweep,
    addPlan,
    addRecommend,
    addSpeculate,
    addAttend,
    addCompare,
    addExport,
    addBench,
    addServe,
    addWorker,
    addFleet,
    addAgent,
    addAgents,
  ])
    add(program, session);
  return program;
}

/** The exit code of an error, once it has been told. */
function tell(error: unknown, session: Session): ExitCode {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return exitCodes.done; // help or version was asked for
    const isLost = error.code === 'commander.unknownCommand' && !error.message.includes('Did you mean');
    const remedy = isLost ? ': --help lists the commands' : '';
    if (error.code !== 'commander.help')
      say(error.message.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ') + remedy);
    return exitCodes.badInput;
  }
  if (session.exitCode === exitCodes.interrupted) return session.exitCode;
  if (error instanceof InputError) {
    say(error.message);
    return exitCodes.badInput;
  }
  if (error instanceof BackendFailure) {
    say(error.message);
    return error.kind === 'refused' ? exitCodes.badInput : exitCodes.someFailed;
  }
  say(error instanceof Error ? (error.stack ?? error.message) : String(error));
  return exitCodes.someFailed;
}

process.stdout.on('error', () => undefined); // told by `print`, which waits for its text
process.stderr.on('error', () => undefined); // a log on a full disk ends no sweep
const workerScript = process.env.FASTMQA_WORKER;
const session: Session = {
  profiler: createProfiler(workerScript === undefined ? {} : { workerScript }),
  exitCode: exitCodes.done,
};
try {
  await createProgram(session).parseAsync();
} catch (error) {
  clearLine();
  session.exitCode = tell(error, session);
} finally {
  await session.profiler.close();
}
process.exit(session.exitCode);
