// What is wrong, in words: what a person must act on, and what is good to know.

const WARNINGS_SHOWN = 6;

export function byGravity(alarms) {
  const said = (grave) => alarms.filter((one) => (one.severity === "critical") === grave).map((one) => one.text);
  const [grave, others] = [said(true), said(false)];
  const more = others.length - WARNINGS_SHOWN;
  return [grave, more > 0 ? [...others.slice(0, WARNINGS_SHOWN), `and ${more} more`] : others];
}
