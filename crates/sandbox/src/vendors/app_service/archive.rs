//! The archive of a site's log files, as the SCM site hands it out at `/dump`: a ZIP whose files are stored as they are.

/// The archive of these files: name and content.
pub(super) fn zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    for (name, content) in files {
        let offset = archive.len();
        let common = common_header(name, content);
        archive.extend(b"PK\x03\x04");
        archive.extend(&common);
        archive.extend(name.as_bytes());
        archive.extend(content);
        // The directory's entry: who made it, the common part, then comment, disk and attributes, all of them none.
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(four(offset));
        directory.extend(name.as_bytes());
    }
    let (count, start) = (two(files.len()), four(archive.len()));
    archive.extend(&directory);
    archive.extend(b"PK\x05\x06\x00\x00\x00\x00");
    archive.extend(count);
    archive.extend(count);
    archive.extend(four(directory.len()));
    archive.extend(start);
    archive.extend([0; 2]);
    archive
}

/// What both headers of a file have in common: version, flags for a UTF-8 name, no compression, no time, check sum,
/// sizes, the name's length and no extra field.
fn common_header(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = vec![20, 0, 0, 8, 0, 0];
    // The first of January 1980: the format has no "unknown".
    header.extend([0, 0, 0x21, 0]);
    header.extend(crc32(content).to_le_bytes());
    header.extend(four(content.len()));
    header.extend(four(content.len()));
    header.extend(two(name.len()));
    header.extend([0; 2]);
    header
}

fn crc32(content: &[u8]) -> u32 {
    let register = content.iter().fold(u32::MAX, |register, byte| {
        (0..8).fold(register ^ u32::from(*byte), |register, _| {
            (register >> 1) ^ if register & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    });
    !register
}

fn two(number: usize) -> [u8; 2] {
    u16::try_from(number).expect("few files with short names").to_le_bytes()
}

fn four(number: usize) -> [u8; 4] {
    u32::try_from(number).expect("a log is kept to some thousand lines").to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_sum_is_the_one_that_archives_use() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn every_file_is_in_the_archive_and_in_its_directory() {
        let archive = zip(&[("LogFiles/a.log", b"one\n".to_vec()), ("LogFiles/b.log", Vec::new())]);
        let count = |part: &[u8]| archive.windows(part.len()).filter(|window| *window == part).count();
        assert_eq!(count(b"PK\x03\x04"), 2);
        assert_eq!(count(b"PK\x01\x02"), 2);
        assert_eq!(count(b"LogFiles/a.log"), 2);
        assert_eq!(count(b"one\n"), 1);
        let end = archive.len() - 22;
        assert_eq!(&archive[end..end + 4], b"PK\x05\x06");
        let start = u32::from_le_bytes(archive[end + 16..end + 20].try_into().unwrap()) as usize;
        assert_eq!(&archive[start..start + 4], b"PK\x01\x02");
    }
}
