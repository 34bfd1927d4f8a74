import type { Run, Score, SiteReport } from '../api/types';
import { clip, count, duration, percent, plural, share, size } from '../format';
import { Cell, Child, curve, fold, line, omittedWords, strong, table } from './dom';

/** What a run's card carries as data. */
export interface IRunData {
  version: number;
  run?: Run;
  progress?: string | null;
  omitted?: Record<string, number>;
}

/** A run from its data: is the federation worth it, what does each site do. */
export function runView(data: IRunData): Child[] {
  const { run, omitted } = data;
  if (!run?.plan) {
    return [line('There is too little in these data to show a run.'), line(omittedWords(omitted))];
  }
  const report = run.report;
  const sites = report?.sites ?? [];
  const parts: Child[] = [headline(run), line(stateWords(run, data.progress ?? null))];
  if (report && measured(run)) {
    parts.push(comparison(run, sites));
  }
  const history = report?.history ?? [];
  // A round that no site evaluated has no accuracy.
  const scored = history.flatMap(({ number, accuracy }) =>
    typeof accuracy === 'number' ? [{ number, accuracy }] : []
  );
  const first = scored[0];
  const last = scored[scored.length - 1];
  if (first && last && scored.length > 1) {
    const words = `Accuracy from ${share(first.accuracy)} to ${share(last.accuracy)} after round ${last.number}`;
    const values = scored.map(entry => entry.accuracy);
    parts.push(line(words), curve(values, words));
  }
  parts.push(siteTable(run, sites));
  parts.push(line("Privacy: none added; the platform saw every site's update."));
  if (history.length) {
    const rows = history.map(entry => [
      count(entry.number),
      typeof entry.accuracy === 'number' ? share(entry.accuracy, 3) : '',
      entry.loss.toPrecision(3)
    ]);
    const columns = ['>Round', '>Accuracy', '>Loss'];
    parts.push(fold('Round by round', table({ caption: 'After each round', columns, rows })));
  }
  parts.push(fold('The plan', planTable(run)));
  if (omitted && Object.keys(omitted).length) {
    parts.push(line(omittedWords(omitted)));
  }
  return parts;
}

function headline(run: Run): HTMLElement {
  const { hosted, simulated, sites } = run.plan;
  const noun = hosted ? 'simulated client' : simulated === false ? 'site' : 'simulated site';
  const parts = [plural(hosted?.clients ?? sites?.length ?? 0, noun), `round ${run.round}/${run.plan.rounds}`];
  if (run.report) {
    parts.push(duration(run.report.elapsed_s ?? 0), clip(run.report.device ?? '', 40));
  }
  return line(strong(clip(run.plan.model)), `, ${parts.join(', ')}`);
}

function stateWords(run: Run, progress: string | null): string {
  const why = run.reason ? `: ${clip(run.reason, 300)}` : '.';
  switch (run.status) {
    case 'completed': {
      const saved = run.model_version ? `saved ${run.plan.model}:${run.model_version}` : 'done';
      return `Run ${run.name}: ${saved}${run.deployed ? ', deployed' : ', not deployed'}.`;
    }
    case 'failed':
      return `Run ${run.name} failed${why}`;
    case 'stopped':
      return `Run ${run.name} was stopped${why}`;
    default:
      return `Run ${run.name}: ${progress ? clip(progress, 200) : 'was in progress when this was saved'}`;
  }
}

function measured(run: Run): boolean {
  const { report } = run;
  const alone = report?.sites?.some(site => site.alone);
  return Boolean(report?.federated ?? report?.pooled ?? alone);
}

function comparison(run: Run, sites: SiteReport[]): HTMLElement {
  const { report } = run;
  const scored = sites.flatMap(site => (site.alone ? [{ site, score: site.alone }] : []));
  const rows: Cell[][] = [];
  if (scored.length) {
    const mean = scored.reduce((sum, entry) => sum + entry.score.accuracy, 0) / scored.length;
    const worst = scored.reduce((a, b) => (b.score.accuracy < a.score.accuracy ? b : a));
    const note = `mean of ${plural(scored.length, 'site')}; worst site ${share(
      worst.score.accuracy
    )} (${clip(worst.site.name, 30)})`;
    rows.push(['alone', share(mean), { bar: mean }, note]);
  }
  if (report?.federated) {
    const score = report.federated;
    const note = `${interval(score)}${foundWords(run, score)}`;
    rows.push(['federated', share(score.accuracy), { bar: score.accuracy }, note]);
  }
  if (report?.pooled) {
    const { pooled } = report;
    const note = `${interval(pooled)}; impossible in reality`;
    rows.push(['pooled', share(pooled.accuracy), { bar: pooled.accuracy }, note]);
  }
  const floor = report?.majority_share;
  if (floor !== null && floor !== undefined) {
    rows.push(['majority class', share(floor), { bar: floor }, 'the floor: one answer for every row']);
  }
  const where = run.plan.hosted && !run.plan.signature ? 'at the clients' : 'before splitting';
  const caption = `Accuracy, ${plural(report?.held_out_rows ?? 0, 'row')} held out ${where}`;
  return table({ caption, columns: ['Trained', '>Accuracy', 'Bar', 'Interval'], rows, titled: false });
}

function interval(score: Score): string {
  return `${share(score.low)}–${share(score.high)}`;
}

function foundWords(run: Run, score: Score): string {
  const positive = run.plan.signature?.positive_class;
  const found = positive ? score.recall?.[positive] : undefined;
  return positive && found !== undefined ? `; ${clip(positive, 30)} found ${share(found)}` : '';
}

function siteTable(run: Run, sites: SiteReport[]): HTMLElement {
  if (!sites.length) {
    const names = (run.plan.sites ?? []).slice(0, 200);
    const pushed = new Set(run.pushed ?? []);
    const rows = names.map(name => [clip(name, 40), pushed.has(name) ? 'update sent' : run.status]);
    const caption = plural(run.plan.sites?.length ?? 0, 'site');
    return table({ caption, columns: ['Site', 'Status'], rows });
  }
  const positive = run.plan.signature?.positive_class ?? null;
  const rows = sites.map(site => {
    const known = positive !== null && site.class_rows?.[positive] !== undefined && site.rows;
    return [
      clip(site.name, 40),
      count(site.rows),
      known ? percent((site.class_rows?.[positive] ?? 0) / site.rows) : '',
      site.status === 'pushed' ? 'update sent' : (site.status ?? ''),
      size(site.sent_bytes ?? 0),
      size(site.received_bytes ?? 0),
      site.alone ? share(site.alone.accuracy) : ''
    ];
  });
  const total = (key: 'rows' | 'sent_bytes' | 'received_bytes'): number =>
    sites.reduce((sum, site) => sum + (site[key] ?? 0), 0);
  const traffic = `sent ${size(total('sent_bytes'))}, received ${size(total('received_bytes'))}`;
  const caption = `${plural(sites.length, 'site')}, ${plural(total('rows'), 'row')}; ${traffic} in all`;
  const share_of = positive === null ? '>Classes' : `>${clip(positive, 24)}`;
  const columns = ['Site', '>Rows', share_of, 'Status', '>Sent', '>Received', '>Alone'];
  return table({ caption, columns, rows });
}

function planTable(run: Run): HTMLElement {
  const { plan } = run;
  const local = plan.local;
  const rows = [
    ['run', `${run.name} (${run.id}), ${run.status}`],
    ['federation', clip(plan.federation)],
    ['data', plan.source ? `${clip(plan.source.name)}, sha256 ${plan.source.sha256.slice(0, 12)}` : ''],
    ['rounds', `${count(plan.rounds)}, averaged by ${plan.strategy ?? 'fedavg'}, seed ${plan.seed ?? 0}`],
    [
      'each round',
      local
        ? `${plural(local.epochs, 'epoch')}, batches of ${count(local.batch_size)}, learning rate ${local.learning_rate}`
        : ''
    ]
  ].filter(row => row[1] !== '');
  return table({ caption: `The plan of ${run.name}`, columns: ['What', 'Value'], rows, titled: false });
}
